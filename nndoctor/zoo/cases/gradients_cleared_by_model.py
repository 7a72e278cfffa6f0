"""model.zero_grad() between backward and step, in a regression that then drifts by weight decay alone."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.synthetic import house_prices
from nndoctor.zoo.trainer import Trained, trained


def train(seed: int, attach: Attach, *, cleared_late: bool) -> Trained:
    data = house_prices(seed=seed)
    loader = data.train_loader(32, seed=seed)
    model = seeded(seed, partial(Mlp, (8, 64, 64, 1), nn.SiLU))
    loss_fn = nn.SmoothL1Loss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    attach(model, optimizer, loss_fn, loader=loader)
    losses = []
    for _epoch in range(4):
        for inputs, targets in loader:
            loss = loss_fn(model(inputs), targets)
            if not cleared_late:
                model.zero_grad()
            loss.backward()
            if cleared_late:
                model.zero_grad()
            optimizer.step()
            losses.append(loss.item())
    return trained(losses)


CASE = Case(
    name="gradients-cleared-by-model",
    diagnosis="gradients-cleared-before-step",
    description="regression, SGD with weight decay: model.zero_grad() between backward() and step()",
    sick=partial(train, cleared_late=True),
    cured=partial(train, cleared_late=False),
    remedies={"optimizer.zero_grad()": {"cleared_late": False}},
    source="https://github.com/ultralytics/ultralytics/pull/11217",
)
