"""A distance loss takes the root of a sum of squares; a pair of equal pictures gives the root of nought."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import PIXELS
from nndoctor.zoo.trainer import Trained, trained


class Embedder(nn.Module):
    """Sixteen numbers for a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(PIXELS, 64), nn.ReLU(), nn.Linear(64, 16))

    def forward(self, images: Tensor) -> Tensor:
        codes: Tensor = self.body(images.flatten(1))  # (batch, 16)
        return codes


def contrastive(one: Tensor, other: Tensor, same: Tensor, epsilon: float) -> Tensor:
    """Pulls pairs of one class together and pushes others apart up to a distance of 1 (Hadsell et al. 2006)."""
    distance = torch.sqrt((one - other).square().sum(dim=1) + epsilon)  # (pairs,)
    return torch.where(same, distance.square(), (1 - distance).clamp_min(0).square()).mean()


def train(seed: int, attach: Attach, *, epsilon: float, steps: int = 250, twin_from: int = 20) -> Trained:
    data = classification()
    images, labels = data.train_inputs, data.train_targets
    generator = torch.Generator().manual_seed(seed)
    model = seeded(seed, Embedder)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    attach(model, optimizer)
    losses = []
    met: int | None = None  # the first step in which a picture is paired with itself
    for step in range(steps):
        first, second = torch.randint(len(images), (2, 64), generator=generator)  # (64,) each
        if step >= twin_from and step % 10 == 0:
            second[0] = first[0]  # sampled with replacement, sooner or later a picture meets itself
        if met is None and bool((first == second).any()):
            met = step + 1
        optimizer.zero_grad()
        loss = contrastive(model(images[first]), model(images[second]), labels[first] == labels[second], epsilon)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return replace(trained(losses), onset=met)


CASE = Case(
    name="unstable-loss-sqrt",
    diagnosis="unstable-loss-op",
    description="siamese MLP, Adam: sqrt of a squared distance without epsilon, and a picture paired with itself",
    sick=partial(train, epsilon=0.0),
    cured=partial(train, epsilon=1e-6),
    place=("loss/sqrt",),
    remedies={"epsilon": "epsilon"},
    source="https://github.com/ronghuaiyang/arcface-pytorch/issues/91",
)
