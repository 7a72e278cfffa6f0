"""Cosine decay with warm restarts: the rate jumps back up three times, and the loss with it."""

from __future__ import annotations

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, steps: int = 420) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, LeNet)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=60, T_mult=2)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, scheduler=scheduler, doctor=doctor)


CASE = Case(
    name="healthy-warm-restarts",
    diagnosis=None,
    description="LeNet, SGDR: the rate falls to zero and jumps back at steps 60 and 180",
    healthy=train,
    source="https://arxiv.org/abs/1608.03983",
)
