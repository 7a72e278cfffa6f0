"""Gradient accumulation done right: eight micro-batches, one zero_grad, one step."""

from __future__ import annotations

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, steps: int = 200) -> Trained:
    data = classification()
    loader = data.train_loader(16, seed=seed)
    model = seeded(seed, LeNet)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, accumulate=8, doctor=doctor)


CASE = Case(
    name="healthy-accumulation",
    diagnosis=None,
    description="LeNet, 8 micro-batches per optimizer step",
    healthy=train,
)
