"""Regression with outliers and a Huber loss: one output, gradients that are cut off for the worst samples."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.synthetic import house_prices
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, steps: int = 500) -> Trained:
    data = house_prices(seed=seed)
    loader = data.train_loader(32, seed=seed)
    model = seeded(seed, partial(Mlp, (8, 64, 64, 1), nn.Tanh))
    loss_fn = nn.HuberLoss(delta=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, val_loader=data.val_loader(), doctor=doctor)


CASE = Case(
    name="healthy-huber",
    diagnosis=None,
    description="regression MLP with tanh, Huber loss, two per cent of the targets are outliers",
    healthy=train,
)
