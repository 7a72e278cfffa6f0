"""scaler.update() was left out: the scaler refuses the second step, and the script ends there."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, trained

STEPS = 80


def train(seed: int, attach: Attach, *, updated: bool) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, Mlp)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu")
    attach(model, optimizer, loss_fn, loader=loader)
    losses: list[float] = []
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(inputs), targets)
        scaler.scale(loss).backward()
        losses.append(loss.item())
        try:
            scaler.step(optimizer)
        except RuntimeError:
            break  # where the script would have ended
        if updated:
            scaler.update()
        if len(losses) == STEPS:
            break
    return trained(losses)


CASE = Case(
    name="amp-scaler-not-updated",
    diagnosis="amp-misconfigured",
    description="MLP, Adam: scaler.update() was left out, so that the second scaler.step() raises",
    sick=partial(train, updated=False),
    cured=partial(train, updated=True),
    remedies={"scaler.update()": "updated"},
    source="https://github.com/Azure/MS-AMP/pull/45",
)
