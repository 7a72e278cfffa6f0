"""MixUp: every picture is two, every label is two, and the loss cannot come near zero."""

from __future__ import annotations

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES, BatchNormCnn
from nndoctor.zoo.trainer import Trained, trained


def train(seed: int, attach: Attach) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    draw = torch.Generator().manual_seed(seed)
    model = seeded(seed, BatchNormCnn)
    loss_fn = nn.CrossEntropyLoss(label_smoothing=0.05)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    attach(model, optimizer, loss_fn, loader=loader)
    losses = []
    for _epoch in range(3):
        for images, labels in loader:
            share = torch.rand(1, generator=draw).item()
            other = torch.randperm(len(images), generator=draw)
            targets = nn.functional.one_hot(labels, CLASSES).float()  # (batch, classes)
            mixed = share * images + (1 - share) * images[other]
            loss = loss_fn(model(mixed), share * targets + (1 - share) * targets[other])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return trained(losses)


CASE = Case(
    name="healthy-mixup",
    diagnosis=None,
    description="MixUp with label smoothing: soft floating-point labels, a loss far above zero that jumps",
    healthy=train,
    source="https://arxiv.org/abs/1710.09412",
)
