"""Regression with plain SGD: a rate above what the curvature bears, so that the error grows from step to step."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.synthetic import house_prices
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, rate: float, steps: int = 400) -> Trained:
    data = house_prices(seed=seed)
    loader = data.train_loader(32, seed=seed)
    model = seeded(seed, partial(Mlp, (8, 64, 64, 1), nn.Tanh))
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="learning-rate-too-high-regression",
    diagnosis="learning-rate-too-high",
    description="regression MLP with tanh, SGD with momentum 0.9: lr=1 instead of 0.01",
    sick=partial(train, rate=1.0),
    cured=partial(train, rate=0.01),
    remedies={"lr": "rate"},
    source="https://github.com/chiphuyen/stanford-tensorflow-tutorials/issues/54",
)
