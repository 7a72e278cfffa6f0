"""Weights in bfloat16 and a small rate: nine updates of ten are rounded back to the old value."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, trained

STEPS = 240


def train(seed: int, attach: Attach, *, dtype: str) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    weights = getattr(torch, dtype)
    model = seeded(seed, Mlp).to(weights)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-5)
    attach(model, optimizer, loss_fn, loader=loader)
    losses: list[float] = []
    while len(losses) < STEPS:
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(inputs.to(weights)).float(), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) == STEPS:
                break
    return trained(losses)


CASE = Case(
    name="low-precision-update-loss",
    diagnosis="low-precision-update-loss",
    description="MLP, Adam at 3e-5: model.to(torch.bfloat16) instead of float32 weights",
    sick=partial(train, dtype="bfloat16"),
    cured=partial(train, dtype="float32"),
    remedies={"weights_dtype": "dtype"},
    source="https://github.com/NVIDIA-NeMo/Automodel/pull/3444",
)
