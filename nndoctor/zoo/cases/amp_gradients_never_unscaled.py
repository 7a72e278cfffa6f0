"""The loss is scaled, the optimizer steps by itself: its gradients are 65536 times too large."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, trained

STEPS = 120


def train(seed: int, attach: Attach, *, by_scaler: bool) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, lambda: Mlp(activation=nn.GELU))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu")
    attach(model, optimizer, loss_fn, loader=loader)
    losses: list[float] = []
    while len(losses) < STEPS:
        for inputs, targets in loader:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_fn(model(inputs), targets)
            scaler.scale(loss).backward()
            if by_scaler:
                scaler.step(optimizer)
                scaler.update()
            else:
                optimizer.step()
            losses.append(loss.item())
            if len(losses) == STEPS:
                break
    return trained(losses)


CASE = Case(
    name="amp-gradients-never-unscaled",
    diagnosis="amp-misconfigured",
    description="MLP, SGD: scaler.scale(loss).backward() and then optimizer.step() instead of scaler.step(optimizer)",
    sick=partial(train, by_scaler=False),
    cured=partial(train, by_scaler=True),
    remedies={"scaler.step(optimizer)": "by_scaler"},
    source="https://github.com/nerfstudio-project/nerfacc/issues/307",
)
