"""A rate for batches of 64 with batches of one: every step undoes the last."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, batch_size: float, rate: float = 0.1) -> Trained:
    data = classification()
    loader = data.train_loader(int(batch_size), seed=seed)
    model = seeded(seed, Mlp)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, 260, doctor=doctor)


CASE = Case(
    name="gradient-noise-too-high",
    diagnosis="gradient-noise-too-high",
    description="MLP, SGD at 0.1: batches of 1 instead of 64",
    sick=partial(train, batch_size=1),
    cured=partial(train, batch_size=64),
    remedies={"batch_size": "batch_size", "lr": "rate"},
    source="https://github.com/HobbitLong/SupContrast/issues/127",
)
