"""BatchNorm in front of a ReLU with its shift far below zero: nothing ever passes, whatever comes in."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.cases.healthy_table_rmsprop import TableNet
from nndoctor.zoo.data import batches
from nndoctor.zoo.synthetic import customers
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, bias: float, rate: float = 0.05, steps: int = 400) -> Trained:
    data = customers(seed=seed)
    loader = batches(data.train_inputs, data.train_targets.float().unsqueeze(1), 64, seed=seed)
    model = seeded(seed, lambda: TableNet(data.train_inputs.shape[1]))
    nn.init.constant_(model.body[5].bias, bias)
    loss_fn = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="dead-relu-batchnorm",
    diagnosis="dead-relu",
    description="table net: the shift of the last BatchNorm starts at -8, the ReLU behind it never opens",
    sick=partial(train, bias=-8.0),
    cured=partial(train, bias=0.0),
    place=("body.4", "body.5", "body.6"),
    remedies={"bias": "bias", "lr": "rate"},
    source="https://github.com/jvargasmu/population_estimation/issues/68",
)
