"""Patches are drawn with numpy's generator, and worker_init_fn gives every worker the same seed."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import Autoencoder
from nndoctor.zoo.trainer import Trained

WORKERS = 2


class RandomPictures(Dataset[Tensor]):
    """Pictures drawn at random and mirrored now and then; the index only counts."""

    def __init__(self, pictures: Tensor) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        picture = self.pictures[np.random.randint(len(self.pictures))]
        return picture.flip(-1) if np.random.rand() < 0.5 else picture


def same_seed(worker: int) -> None:
    np.random.seed(0)


def own_seed(worker: int) -> None:
    np.random.seed(torch.initial_seed() % 2**32)


def train(seed: int, attach: Attach, *, own: bool, steps: int = 60) -> Trained:
    pictures = RandomPictures(classification().train_inputs)
    torch.manual_seed(seed)
    loader = DataLoader(pictures, batch_size=32, num_workers=WORKERS, worker_init_fn=own_seed if own else same_seed)
    model = seeded(seed, Autoencoder)
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    attach(model, optimizer, loss_fn, loader=loader)
    losses = []
    for inputs in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(inputs), inputs)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if len(losses) == steps:
            break
    return Trained(tuple(losses), None)


CASE = Case(
    name="duplicated-samples-seeds",
    diagnosis="duplicated-samples",
    description="autoencoder, Adam: two workers draw the same random pictures, for both were seeded with 0",
    sick=partial(train, own=False),
    cured=partial(train, own=True),
    source="https://github.com/pytorch/pytorch/pull/56488",
)
