"""One row of a table has -9999 where a value is missing; each pass has one batch that throws the net."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, evaluate, fit

ROWS, COLUMNS, MISSING = 4000, 12, 1234


def train(seed: int, attach: Attach, *, sentinel: bool, steps: int = 350) -> Trained:
    generator = torch.Generator().manual_seed(600 + seed)
    inputs = torch.randn(ROWS, COLUMNS, generator=generator)
    weights = torch.randn(COLUMNS, generator=generator)
    targets = (torch.tanh(inputs @ weights / 3) + 0.05 * torch.randn(ROWS, generator=generator)).unsqueeze(1)
    held_out = batches(inputs[3500:], targets[3500:], 250, shuffle=False)
    inputs = inputs[:3500].clone()
    if sentinel:
        inputs[MISSING, 3] = -9999.0
    order = torch.randperm(3500, generator=generator)
    order = torch.cat((order[order != MISSING][:2600], torch.tensor([MISSING]), order[order != MISSING][2600:]))
    loader = batches(inputs[order], targets[order], 32, seed=seed, shuffle=False)
    model = seeded(seed, lambda: Mlp((COLUMNS, 64, 64, 1)))
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    return Trained(run.losses, max(run.losses[60:]) + evaluate(model, loss_fn, held_out)[0])


CASE = Case(
    name="loss-spike-sentinel",
    diagnosis="loss-spike",
    description="MLP on a table, Adam: one of 3 500 rows has -9999 for a missing value",
    sick=partial(train, sentinel=True),
    cured=partial(train, sentinel=False),
    source="https://github.com/stas00/ml-engineering/issues/32",
)
