"""Validation switches to eval mode and nobody switches back: from the second epoch on there is no batch norm."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import BatchNormCnn
from nndoctor.zoo.trainer import Trained, trained


def train(seed: int, attach: Attach, *, back_to_train: bool) -> Trained:
    data = classification().first(3200)
    loader, val_loader = data.train_loader(seed=seed), data.val_loader()
    model = seeded(seed, BatchNormCnn)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    losses = []
    model.train()
    for _epoch in range(6):
        if back_to_train:
            model.train()
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            val_losses = [loss_fn(model(inputs), targets).item() for inputs, targets in val_loader]
        doctor.observe(val_loss=sum(val_losses) / len(val_losses))
    run = trained(losses)
    return Trained(run.losses, None)  # whether frozen statistics hurt is up to chance


CASE = Case(
    name="eval-mode-during-training",
    diagnosis="eval-mode-during-training",
    description="CNN with BatchNorm and dropout: model.eval() for validation, no model.train() after it",
    sick=partial(train, back_to_train=False),
    cured=partial(train, back_to_train=True),
    remedies={"model.train()": "back_to_train"},
    source="https://github.com/joeynmt/joeynmt/issues/184",
    onset=51,  # the second of six epochs begins
)
