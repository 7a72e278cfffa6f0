"""Backward runs in every round, but nobody calls step: the weights stay what they were."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, trained


def train(seed: int, attach: Attach, *, step: bool) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, Mlp)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    attach(model, optimizer, loss_fn, loader=loader)
    losses = []
    for _epoch in range(3):
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            loss.backward()
            if step:
                optimizer.step()
            losses.append(loss.item())
    return trained(losses)


CASE = Case(
    name="missing-optimizer-step",
    diagnosis="missing-optimizer-step",
    description="MLP: the loop never calls optimizer.step()",
    sick=partial(train, step=False),
    cured=partial(train, step=True),
    remedies={"optimizer.step()": "step"},
    source="https://github.com/microsoft/nni/pull/3339",
)
