"""A new gradient scaler for every batch: its scale is 65536 for ever, and the gradients overflow at it for ever."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, trained

STEPS = 130


def train(seed: int, attach: Attach, *, once: bool) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, Mlp)
    loss_fn = nn.CrossEntropyLoss(reduction="sum")
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
    attach(model, optimizer, loss_fn, loader=loader)
    losses: list[float] = []
    while len(losses) < STEPS:
        for inputs, targets in loader:
            if not once:
                scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16):
                loss = loss_fn(model(inputs), targets)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.item())
            if len(losses) == STEPS:
                break
    return trained(losses)


CASE = Case(
    name="amp-scaler-rebuilt",
    diagnosis="amp-misconfigured",
    description="MLP, AdamW, float16, a loss summed over the batch: GradScaler() inside of the loop",
    sick=partial(train, once=False),
    cured=partial(train, once=True),
    source="https://github.com/oke-aditya/pytorch_cnn_trainer/pull/10",
)
