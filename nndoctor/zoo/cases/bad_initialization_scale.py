"""Weights drawn from a standard normal, whatever the width: each layer makes its signal ten times larger."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, std: float | None, steps: int = 400) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, Mlp)
    if std is not None:
        for layer in (model.fc1, model.fc2, model.fc3):
            nn.init.normal_(layer.weight, std=std)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="bad-initialization-scale",
    diagnosis="bad-initialization",
    description="MLP: weights from a standard normal instead of one scaled by the fan-in",
    sick=partial(train, std=1.0),
    cured=partial(train, std=None),
    place=("fc1", "fc2", "fc3"),
    remedies={"init_std_factor": "std"},
    source="https://github.com/pytorch-tpu/transformers/pull/26",
)
