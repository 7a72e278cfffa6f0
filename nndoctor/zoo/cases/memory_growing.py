"""Every batch's activations are appended to a list "for later": the process grows by megabytes per step."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained


def train(seed: int, attach: Attach, *, keep_all: bool, steps: int = 300) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, Mlp)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    attach(model, optimizer, loss_fn, loader=loader)
    kept: list[Tensor] = []
    losses: list[float] = []
    while len(losses) < steps:
        for images, labels in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(images), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            kept.append(torch.cat([images] * 12))  # the batch and its augmentations, "to look at later"
            if not keep_all:
                del kept[:-4]
            if len(losses) == steps:
                break
    return Trained(tuple(losses), None)


CASE = Case(
    name="memory-growing-batches",
    diagnosis="memory-growing",
    description="MLP: every batch is appended to a list; the cured run keeps the last four",
    sick=partial(train, keep_all=True),
    cured=partial(train, keep_all=False),
    source="https://docs.pytorch.org/docs/stable/notes/faq.html",
)
