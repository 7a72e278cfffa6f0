"""A transformer encoder under AdamW with linear warm-up: the rate is near zero at first, and that is right."""

from __future__ import annotations

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import RowTransformer
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, steps: int = 350) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, RowTransformer)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=60)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, scheduler=scheduler, clip=1.0, doctor=doctor)


CASE = Case(
    name="healthy-transformer",
    diagnosis=None,
    description="transformer encoder, AdamW, 60 steps of warm-up",
    healthy=train,
)
