"""A schedule counted in epochs but stepped after every batch: the rate is gone before the first epoch ends."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, trained


def train(seed: int, attach: Attach, *, per_batch: bool) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, LeNet)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.8)
    attach(model, optimizer, loss_fn, loader=loader)
    losses = []
    for _epoch in range(4):
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if per_batch:
                scheduler.step()
        if not per_batch:
            scheduler.step()
    return trained(losses)


CASE = Case(
    name="lr-schedule-misconfigured",
    diagnosis="lr-schedule-misconfigured",
    description="LeNet, ExponentialLR(gamma=0.8) stepped after every batch instead of every epoch",
    sick=partial(train, per_batch=True),
    cured=partial(train, per_batch=False),
    remedies={"scheduler.step()": {"per_batch": False}},
    source="https://github.com/ivadomed/ivadomed/pull/55",
)
