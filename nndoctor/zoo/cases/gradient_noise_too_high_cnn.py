"""Momentum SGD on two samples at a time, with the rate of a recipe for many."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, batch_size: float, rate: float = 0.05) -> Trained:
    data = classification()
    loader = data.train_loader(int(batch_size), seed=seed)
    model = seeded(seed, LeNet)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, 220, doctor=doctor)


CASE = Case(
    name="gradient-noise-too-high-cnn",
    diagnosis="gradient-noise-too-high",
    description="LeNet, SGD with momentum at 0.05: batches of 2 instead of 64",
    sick=partial(train, batch_size=2),
    cured=partial(train, batch_size=64),
    remedies={"batch_size": "batch_size", "lr": "rate"},
    source="https://github.com/BVLC/caffe/issues/3801",
)
