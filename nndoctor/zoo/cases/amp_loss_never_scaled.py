"""What scaler.scale() hands back is thrown away: gradients are divided by a scale that they never carried."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import ink_regression
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, trained

STEPS = 200


def train(seed: int, attach: Attach, *, scaled: bool) -> Trained:
    data = ink_regression()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, lambda: Mlp((14 * 28, 64, 32, 1), nn.Tanh))
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu")
    attach(model, optimizer, loss_fn, loader=loader)
    losses: list[float] = []
    while len(losses) < STEPS:
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            scaled_loss = scaler.scale(loss)
            (scaled_loss if scaled else loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.item())
            if len(losses) == STEPS:
                break
    return trained(losses)


CASE = Case(
    name="amp-loss-never-scaled",
    diagnosis="amp-misconfigured",
    description="MLP regression, SGD: scaler.scale(loss) is called, but loss.backward() runs on the loss itself",
    sick=partial(train, scaled=False),
    cured=partial(train, scaled=True),
    remedies={"scaler.scale(loss).backward()": "scaled"},
    source="https://github.com/NVIDIA/apex/issues/377",
)
