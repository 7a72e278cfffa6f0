"""Adagrad on a table: the rate is 0.1 and the steps shrink by themselves as gradients add up."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.synthetic import customers
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, steps: int = 500) -> Trained:
    data = customers(seed=seed)
    loader = data.train_loader(64, seed=seed)
    model = seeded(seed, partial(Mlp, (data.train_inputs.shape[1], 64, 32, 2), nn.LeakyReLU))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, val_loader=data.val_loader(), doctor=doctor)


CASE = Case(
    name="healthy-adagrad",
    diagnosis=None,
    description="table of floats and one-hot columns, Adagrad at 0.05: large first steps, ever smaller ones",
    healthy=train,
)
