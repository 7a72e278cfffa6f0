"""An MLP block whose activation argument defaults to none, on two spirals that no line can part."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches
from nndoctor.zoo.trainer import Trained, fit

FUNCTIONS = {"none": lambda hidden: hidden, "relu": torch.relu}


def spirals(seed: int, count: int = 2000) -> tuple[Tensor, Tensor]:
    """Points on two spirals with three quarters of a turn and a little noise, (count, 2), and which one they are on."""
    generator = torch.Generator().manual_seed(seed)
    arm = torch.arange(count) % 2
    angle = 1.5 * math.pi * torch.rand(count, generator=generator).sqrt()
    turn = angle + math.pi * arm
    points = torch.stack([angle * turn.cos(), angle * turn.sin()], dim=1) / 2
    return points + 0.05 * torch.randn(points.shape, generator=generator), arm


class Blocks(nn.Module):
    """Layers in a list, each followed by a function."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 48), nn.Linear(48, 48), nn.Linear(48, 48)])
        self.out = nn.Linear(48, 2)
        self.activation = activation

    def forward(self, points: Tensor) -> Tensor:
        hidden = points
        for layer in self.layers:
            hidden = FUNCTIONS[self.activation](layer(hidden))  # (batch, 48)
        logits: Tensor = self.out(hidden)  # (batch, 2)
        return logits


def train(seed: int, attach: Attach, *, activation: str, steps: int = 400) -> Trained:
    points, arm = spirals(seed)
    loader = batches(points, arm, 50, seed=seed)
    model = seeded(seed, partial(Blocks, activation))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="missing-nonlinearity-spirals",
    diagnosis="missing-nonlinearity",
    description="MLP on two spirals, Adam: the activation argument of its blocks was left at none",
    sick=partial(train, activation="none"),
    cured=partial(train, activation="relu"),
    place=("layers.0", "layers.1", "layers.2"),
    remedies={"activation": "activation"},
    source="https://github.com/YujiaBao/ls/issues/1",
)
