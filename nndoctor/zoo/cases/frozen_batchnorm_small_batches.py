"""Fine-tuning on very small batches: the frozen normalisation layers forget what they knew of the data."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, classification
from nndoctor.zoo.models import ResidualNet
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, frozen_mode: str, steps: int = 200) -> Trained:
    data = classification()
    model: ResidualNet = seeded(seed, ResidualNet)
    loss_fn = nn.CrossEntropyLoss()
    fit(model, torch.optim.Adam(model.parameters(), lr=2e-3), loss_fn, data.train_loader(seed=seed), 150)
    model.zero_grad()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.requires_grad_(False)  # small batches must not disturb them
    loader = batches(data.train_inputs, data.train_targets, 2, seed=seed)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    attach(model, optimizer, loss_fn, loader=loader)
    losses: list[float] = []
    model.train()
    if frozen_mode == "eval":
        for norm in norms:
            norm.eval()
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if len(losses) == steps:
            break
    return Trained(tuple(losses), None)  # how far the statistics stray with the last few samples is up to chance


CASE = Case(
    name="frozen-batchnorm-small-batches",
    diagnosis="frozen-batchnorm-updating",
    description="residual net, batches of two: frozen BatchNorm keeps moving its running statistics",
    sick=partial(train, frozen_mode="train"),
    cured=partial(train, frozen_mode="eval"),
    place=("blocks",),
    remedies={"frozen_part.eval()": {"frozen_mode": "eval"}},
    source="https://github.com/isht7/pytorch-deeplab-resnet/issues/39",
)
