"""Residual branches that start at exactly zero, as many recipes ask for: no symmetry problem, no dead layer."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import ResidualNet
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, steps: int = 300) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, partial(ResidualNet, zero_branches=True))
    nn.init.zeros_(model.head.weight)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="healthy-zero-init-residual",
    diagnosis=None,
    description="residual net: last BatchNorm of each branch and the head start at zero",
    healthy=train,
    source="https://arxiv.org/abs/1706.02677",
)
