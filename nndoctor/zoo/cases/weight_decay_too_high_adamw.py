"""A decay of 30 in AdamW, meant to be 0.03: every step takes three percent of each weight."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, weight_decay: float) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, lambda: Mlp(activation=nn.GELU))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=weight_decay)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, 260, doctor=doctor)


CASE = Case(
    name="weight-decay-too-high-adamw",
    diagnosis="weight-decay-too-high",
    description="MLP with GELU, AdamW: weight_decay=30 instead of 0.03",
    sick=partial(train, weight_decay=30.0),
    cured=partial(train, weight_decay=0.03),
    remedies={"weight_decay": "weight_decay"},
    source="https://github.com/fastai/fastai/issues/1806",
)
