"""A small table full of noise: the loss leaves chance, reaches what can be known, and stays there."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.synthetic import customers
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, steps: int = 500) -> Trained:
    data = customers(1200, noise=1.5, seed=seed)
    loader = data.train_loader(32, seed=seed)
    model = seeded(seed, partial(Mlp, (data.train_inputs.shape[1], 16, 2)))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, weight_decay=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, val_loader=data.val_loader(), doctor=doctor)


CASE = Case(
    name="healthy-noisy-table",
    diagnosis=None,
    description="1 200 rows with more noise than signal: the loss plateaus early and not far below chance",
    healthy=train,
)
