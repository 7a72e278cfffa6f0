"""ReduceLROnPlateau and early stopping: the rate falls by tenths, and the run ends when validation stalls."""

from __future__ import annotations

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, evaluate, trained

PATIENCE = 3


def train(seed: int, attach: Attach) -> Trained:
    data = classification().first(2500)
    loader, val_loader = data.train_loader(seed=seed), data.val_loader()
    model = seeded(seed, LeNet)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-3)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    losses = []
    best, waited = float("inf"), 0
    for _epoch in range(14):
        model.train()
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        val_loss, accuracy = evaluate(model, loss_fn, val_loader)
        doctor.observe(val_loss=val_loss, accuracy=accuracy)
        scheduler.step(val_loss)
        waited = 0 if val_loss < best - 1e-3 else waited + 1
        best = min(best, val_loss)
        if waited == PATIENCE:
            break
    return trained(losses)


CASE = Case(
    name="healthy-early-stopping",
    diagnosis=None,
    description="ReduceLROnPlateau ends at a thousandth of the first rate, early stopping ends the run",
    healthy=train,
)
