"""zero_grad stands between backward and step: the optimizer never sees a gradient."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, trained


def train(seed: int, attach: Attach, *, cleared_late: bool) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, LeNet)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    attach(model, optimizer, loss_fn, loader=loader)
    losses = []
    for _epoch in range(3):
        for inputs, targets in loader:
            if not cleared_late:
                optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            loss.backward()
            if cleared_late:
                optimizer.zero_grad()
            optimizer.step()
            losses.append(loss.item())
    return trained(losses)


CASE = Case(
    name="gradients-cleared-before-step",
    diagnosis="gradients-cleared-before-step",
    description="LeNet: zero_grad() between backward() and step()",
    sick=partial(train, cleared_late=True),
    cured=partial(train, cleared_late=False),
    remedies={"optimizer.zero_grad()": {"cleared_late": False}},
    source="https://github.com/ultralytics/ultralytics/pull/11217",
)
