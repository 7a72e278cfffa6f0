"""A LeNet trained from scratch at a rate meant for the last polish of a large pre-trained net."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, rate: float, steps: int = 350) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, LeNet)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="learning-rate-too-low-adam",
    diagnosis="learning-rate-too-low",
    description="LeNet from scratch, Adam: lr=1e-7 instead of 1e-3",
    sick=partial(train, rate=1e-7),
    cured=partial(train, rate=1e-3),
    remedies={"lr": "rate"},
    source="https://github.com/fizyr/keras-retinanet/pull/843",
)
