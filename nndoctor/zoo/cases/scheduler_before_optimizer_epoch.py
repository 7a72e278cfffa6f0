"""scheduler.step() at the top of the epoch, as before PyTorch 1.1: the first epoch gets the second epoch's rate."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, trained

EPOCHS = 3


def train(seed: int, attach: Attach, *, first: bool) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, LeNet)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)
    attach(model, optimizer, loss_fn, loader=loader)
    losses: list[float] = []
    for _epoch in range(EPOCHS):
        if first:
            scheduler.step()
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        if not first:
            scheduler.step()
    return trained(losses)


CASE = Case(
    name="scheduler-before-optimizer",
    diagnosis="scheduler-before-optimizer",
    description="LeNet, SGD, StepLR(gamma=0.1): scheduler.step() at the top of each epoch",
    sick=partial(train, first=True),
    cured=partial(train, first=False),
    remedies={"scheduler.step()": {"first": False}},
    source="https://github.com/zju3dv/NeuralRecon/issues/51",
)
