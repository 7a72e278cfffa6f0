"""A CNN with batch normalisation and dropout, SGD with momentum and weight decay, validated in eval mode."""

from __future__ import annotations

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import BatchNormCnn
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, steps: int = 330) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, BatchNormCnn)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, val_loader=data.val_loader(), doctor=doctor)


CASE = Case(
    name="healthy-cnn-batchnorm",
    diagnosis=None,
    description="CNN with BatchNorm and dropout: eval mode is for validation only",
    healthy=train,
)
