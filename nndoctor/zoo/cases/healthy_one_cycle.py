"""The one-cycle policy: the rate climbs to twenty times its start and ends near zero, momentum goes the other way."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import BatchNormCnn
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, steps: int = 260) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, partial(BatchNormCnn, 8, 0.1))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=steps + 1)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, scheduler=scheduler, doctor=doctor)


CASE = Case(
    name="healthy-one-cycle",
    diagnosis=None,
    description="OneCycleLR to 0.2 and down to nearly zero: rate and momentum change in every step",
    healthy=train,
    source="https://arxiv.org/abs/1708.07120",
)
