"""enabled= compares two spellings of the same type: float16 without a scaler, small gradients become zero."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import PIXELS, Mlp
from nndoctor.zoo.trainer import Trained, trained

STEPS = 160

MILLIMETRES = 0.001
"""The pictures are brightness maps in metres, as an instrument might give them; their errors are tiny numbers."""


def train(seed: int, attach: Attach, *, enabled: bool) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, lambda: Mlp((PIXELS, 64, 32, 64, PIXELS), nn.SiLU))
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    scaler = torch.amp.GradScaler("cpu", enabled=bool(enabled))
    attach(model, optimizer, loss_fn, loader=loader)
    losses: list[float] = []
    while len(losses) < STEPS:
        for inputs, _labels in loader:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16):
                loss = loss_fn(model(inputs) * MILLIMETRES, inputs.flatten(1) * MILLIMETRES)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.item() / MILLIMETRES**2)
            if len(losses) == STEPS:
                break
    return trained(losses)


CASE = Case(
    name="amp-scaler-disabled",
    diagnosis="amp-misconfigured",
    description="autoencoder of small numbers, Adam, float16: the gradient scaler is made with enabled=False",
    sick=partial(train, enabled=False),
    cured=partial(train, enabled=True),
    remedies={"scaler_enabled": "enabled"},
    source="https://github.com/karpathy/nanoGPT/pull/106",
)
