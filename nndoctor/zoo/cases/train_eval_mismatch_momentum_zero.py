"""BatchNorm with momentum=0, ported from a framework where that means something else: eval mode knows no statistics."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import BatchNormCnn
from nndoctor.zoo.trainer import Trained, evaluate


def train(seed: int, attach: Attach, *, momentum: float) -> Trained:
    data = classification().first(2560)
    loader, val_loader = data.train_loader(seed=seed), data.val_loader()
    model = seeded(seed, BatchNormCnn)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    losses, val_loss = [], 0.0
    for _epoch in range(2):
        model.train()
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        val_loss, _ = evaluate(model, loss_fn, val_loader)
        doctor.observe(val_loss=val_loss)
    return Trained(tuple(losses), val_loss)


CASE = Case(
    name="train-eval-mismatch-momentum-zero",
    diagnosis="train-eval-mismatch",
    description="CNN, SGD: every BatchNorm has momentum=0, so its running statistics never leave their start",
    sick=partial(train, momentum=0.0),
    cured=partial(train, momentum=0.1),
    place=("block1", "block2", "block3"),
    remedies={"batchnorm_momentum": "momentum"},
    source="https://github.com/Cadene/pretrained-models.pytorch/issues/5",
)
