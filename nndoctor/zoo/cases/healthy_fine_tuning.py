"""Fine-tuning at a tiny rate: a trained net goes on at 1e-5, hardly moves, and is not ill for it."""

from __future__ import annotations

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, steps: int = 300) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, LeNet)
    loss_fn = nn.CrossEntropyLoss()
    fit(model, torch.optim.Adam(model.parameters(), lr=2e-3), loss_fn, loader, 400)
    model.zero_grad()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="healthy-fine-tuning",
    diagnosis=None,
    description="LeNet trained beforehand, fine-tuned with AdamW at lr=1e-5: the loss is flat",
    healthy=train,
)
