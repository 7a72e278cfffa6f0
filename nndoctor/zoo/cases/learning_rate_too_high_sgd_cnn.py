"""A LeNet under SGD with momentum whose rate is seventy times too large: it never leaves chance again."""

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
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="learning-rate-too-high",
    diagnosis="learning-rate-too-high",
    description="LeNet, SGD with momentum 0.9: lr=0.7 instead of 0.01",
    sick=partial(train, rate=0.7),
    cured=partial(train, rate=0.01),
    remedies={"lr": "rate"},
    source="https://github.com/pytorch/examples/issues/736",
)
