"""A second block is built, registered and handed to the optimizer, and the forward pass walks past it."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES, ResidualBlock
from nndoctor.zoo.trainer import Trained, fit


class TwoBlocks(nn.Module):
    """A stem and two residual blocks; with `forgotten` the forward pass uses the first one twice."""

    def __init__(self, forgotten: bool) -> None:
        super().__init__()
        self.forgotten = forgotten
        self.stem = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.relu = nn.ReLU()
        self.block1 = ResidualBlock(8)
        self.block2 = ResidualBlock(8)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.head = nn.Linear(8 * 16, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.block1(self.relu(self.stem(images)))  # (batch, 8, 14, 14)
        maps = (self.block1 if self.forgotten else self.block2)(maps)  # (batch, 8, 14, 14)
        logits: Tensor = self.head(self.pool(maps).flatten(1))  # (batch, classes)
        return logits


def train(seed: int, attach: Attach, *, forgotten: bool, steps: int = 300) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, partial(TwoBlocks, forgotten))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    return Trained(run.losses, None)  # the shallower net is a little worse at most


CASE = Case(
    name="unused-parameters",
    diagnosis="unused-parameters",
    description="residual net: forward() runs block1 twice and never block2",
    sick=partial(train, forgotten=True),
    cured=partial(train, forgotten=False),
    place=("block2",),
    source="https://github.com/inria-thoth/HySUPP/issues/3",
)
