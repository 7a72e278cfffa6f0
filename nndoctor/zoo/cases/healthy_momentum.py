"""Momentum 0.99: the loss swings slowly, for each step carries the sum of a hundred."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES, PIXELS, Mlp
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, steps: int = 500) -> Trained:
    data = classification()
    loader = data.train_loader(128, seed=seed)
    model = seeded(seed, partial(Mlp, (PIXELS, 64, CLASSES), nn.ELU))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=2e-3, momentum=0.99)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="healthy-momentum",
    diagnosis=None,
    description="MLP with ELU, SGD with momentum 0.99: the loss swings in long waves",
    healthy=train,
)
