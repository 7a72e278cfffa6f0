"""growth_interval=1: the loss scale doubles after every good step, so that every second step overflows."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, trained

STEPS = 170


def train(seed: int, attach: Attach, *, growth_interval: float) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, lambda: Mlp((784, 96, 48, 10)))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    scaler = torch.amp.GradScaler("cpu", growth_factor=8.0, growth_interval=int(growth_interval))
    attach(model, optimizer, loss_fn, loader=loader)
    losses: list[float] = []
    while len(losses) < STEPS:
        for inputs, targets in loader:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16):
                loss = loss_fn(model(inputs), targets)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.item())
            if len(losses) == STEPS:
                break
    return trained(losses)


CASE = Case(
    name="amp-scale-grows-every-step",
    diagnosis="amp-misconfigured",
    description="MLP, SGD, float16: GradScaler(growth_factor=8, growth_interval=1) skips three steps of four",
    sick=partial(train, growth_interval=1),
    cured=partial(train, growth_interval=2000),
    remedies={"growth_interval": "growth_interval"},
    source="https://github.com/pytorch/pytorch/issues/98828",
)
