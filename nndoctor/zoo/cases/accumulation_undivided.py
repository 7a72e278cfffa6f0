"""Eight micro-batches per step, and nobody divides by eight: the step is eight times what the rate says."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, trained


def train(seed: int, attach: Attach, *, divisor: float, steps: int = 120) -> Trained:
    data = classification()
    loader = data.train_loader(16, seed=seed)
    model = seeded(seed, LeNet)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.04, momentum=0.9)
    attach(model, optimizer, loss_fn, loader=loader)
    losses: list[float] = []
    step_loss = 0.0
    while len(losses) < steps:
        for number, (inputs, targets) in enumerate(loader):
            loss = loss_fn(model(inputs), targets)
            (loss / divisor if divisor != 1 else loss).backward()
            step_loss += loss.item() / 8
            if (number + 1) % 8 == 0:
                optimizer.step()
                optimizer.zero_grad()
                losses.append(step_loss)
                step_loss = 0.0
                if len(losses) == steps:
                    break
    return trained(losses)


CASE = Case(
    name="accumulation-undivided",
    diagnosis="gradient-accumulation-misnormalised",
    description="LeNet, SGD with momentum: eight micro-batches per step, the loss is not divided by eight",
    sick=partial(train, divisor=1),
    cured=partial(train, divisor=8),
    remedies={"loss_divisor": "divisor", "loss = loss / accumulation_steps": {}},
    source="https://github.com/hirofumi0810/neural_sp/issues/168",
)
