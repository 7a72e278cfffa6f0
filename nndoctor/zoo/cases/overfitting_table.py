"""A wide net on a hundred and fifty noisy rows: it learns them by heart, and validation pays for it."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.synthetic import customers
from nndoctor.zoo.trainer import Trained, evaluate

STEPS_PER_VALIDATION = 20


def train(seed: int, attach: Attach, *, rows: int, steps: int = 500) -> Trained:
    data = customers(4000, noise=0.5, seed=seed).first(rows)
    loader, val_loader = data.train_loader(50, seed=seed), data.val_loader()
    model = seeded(seed, partial(Mlp, (data.train_inputs.shape[1], 256, 128, 2), nn.GELU))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    losses: list[float] = []
    val_loss = float("nan")
    while len(losses) < steps:
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) % STEPS_PER_VALIDATION == 0:
                val_loss, accuracy = evaluate(model, loss_fn, val_loader)
                doctor.observe(val_loss=val_loss, accuracy=accuracy)
            if len(losses) == steps:
                break
    return Trained(tuple(losses), val_loss)


CASE = Case(
    name="overfitting-table",
    diagnosis="overfitting",
    description="wide table net on 150 noisy rows instead of 4 000, validation observed every 20 steps",
    sick=partial(train, rows=150),
    cured=partial(train, rows=4000),
    source="https://github.com/codetiger/ThiruvalluvarGPT/issues/4",
)
