"""A table in its own units: one column is an income in cents, the others are of order one."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.synthetic import customers
from nndoctor.zoo.trainer import Trained, fit

INCOME = 5  # a column that says nothing about the customer


def train(seed: int, attach: Attach, *, cents: float, steps: int = 450) -> Trained:
    data = customers(seed=seed)
    columns = data.train_inputs.clone()
    columns[:, INCOME] = (columns[:, INCOME] + 3) * cents if cents != 1.0 else columns[:, INCOME]
    loader = batches(columns, data.train_targets, 64, seed=seed)
    model = seeded(seed, partial(Mlp, (columns.shape[1], 64, 32, 2)))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="inputs-not-normalised-columns",
    diagnosis="inputs-not-normalised",
    description="table: one column of about 3 000 000 beside others of order one",
    sick=partial(train, cents=1e6),
    cured=partial(train, cents=1.0),
    source="https://github.com/ageron/handson-ml3/pull/20",
)
