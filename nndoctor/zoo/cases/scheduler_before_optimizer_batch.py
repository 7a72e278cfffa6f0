"""scheduler.step() between backward() and optimizer.step(): every step uses the next one's rate."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained

STEPS = 120


def train(seed: int, attach: Attach, *, first: bool) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, lambda: Mlp(activation=nn.GELU))
    loss_fn = nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS + 1)
    attach(model, optimizer, loss_fn, loader=loader)
    losses: list[float] = []
    while len(losses) < STEPS:
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            loss.backward()
            if first:
                scheduler.step()
            optimizer.step()
            if not first:
                scheduler.step()
            losses.append(loss.item())
            if len(losses) == STEPS:
                break
    return Trained(tuple(losses), None)  # off by one step: the order is wrong, the loss hardly tells


CASE = Case(
    name="scheduler-before-optimizer-batch",
    diagnosis="scheduler-before-optimizer",
    description="MLP, AdamW, cosine schedule: scheduler.step() between backward() and optimizer.step()",
    sick=partial(train, first=True),
    cured=partial(train, first=False),
    remedies={"scheduler.step()": {"first": False}},
    source="https://github.com/deepspeedai/DeepSpeed/issues/1120",
)
