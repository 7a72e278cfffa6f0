"""A wide net on two hundred pictures: it learns them by heart while validation gets worse."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES, PIXELS, Mlp
from nndoctor.zoo.trainer import Trained, evaluate

STEPS = 400
STEPS_PER_VALIDATION = 20


def train(seed: int, attach: Attach, *, examples: int) -> Trained:
    data = classification().first(examples)
    loader, val_loader = data.train_loader(50, seed=seed), data.val_loader()
    model = seeded(seed, partial(Mlp, (PIXELS, 256, 128, CLASSES)))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    losses: list[float] = []
    val_loss = float("nan")
    while len(losses) < STEPS:
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) % STEPS_PER_VALIDATION == 0:
                val_loss, accuracy = evaluate(model, loss_fn, val_loader)
                doctor.observe(val_loss=val_loss, accuracy=accuracy)
            if len(losses) == STEPS:
                break
    return Trained(tuple(losses), val_loss)


CASE = Case(
    name="overfitting",
    diagnosis="overfitting",
    description="MLP on 200 pictures instead of 7 000, validation observed",
    sick=partial(train, examples=200),
    cured=partial(train, examples=7000),
    source="https://github.com/codetiger/ThiruvalluvarGPT/issues/4",
)
