"""A layer whose biases start far below zero: none of its ReLUs ever opens, and nothing below it learns."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES, PIXELS, Mlp
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, bias: float, rate: float = 0.05, steps: int = 400) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, partial(Mlp, (PIXELS, 128, 64, 32, CLASSES)))
    nn.init.constant_(model.fc2.bias, bias)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="dead-relu",
    diagnosis="dead-relu",
    description="MLP: the biases of fc2 start at -10 instead of 0",
    sick=partial(train, bias=-10.0),
    cured=partial(train, bias=0.0),
    place=("act2", "fc2"),
    remedies={"bias": "bias", "lr": "rate"},
    source="https://github.com/jvargasmu/population_estimation/issues/68",
)
