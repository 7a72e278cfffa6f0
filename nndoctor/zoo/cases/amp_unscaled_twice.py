"""unscale_ for every micro-batch of an accumulation window: the scaler refuses the second one."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, trained

WINDOW = 4
STEPS = 60


def train(seed: int, attach: Attach, *, every_micro_batch: bool) -> Trained:
    data = classification()
    loader = data.train_loader(16, seed=seed)
    model = seeded(seed, LeNet)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    scaler = torch.amp.GradScaler("cpu")
    attach(model, optimizer, loss_fn, loader=loader)
    losses: list[float] = []
    window: list[float] = []
    for inputs, targets in loader:
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_fn(model(inputs), targets)
        scaler.scale(loss / WINDOW).backward()
        window.append(loss.item())
        last = len(window) == WINDOW
        try:
            if every_micro_batch or last:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        except RuntimeError:
            return trained([*losses, *window])  # where the script would have ended
        if last:
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            losses.append(sum(window) / WINDOW)
            window = []
        if len(losses) == STEPS:
            break
    return trained(losses)


CASE = Case(
    name="amp-unscaled-twice",
    diagnosis="amp-misconfigured",
    description="LeNet, AdamW, 4 micro-batches per step: scaler.unscale_() and clipping for each of them",
    sick=partial(train, every_micro_batch=True),
    cured=partial(train, every_micro_batch=False),
    source="https://github.com/microsoft/Swin-Transformer/issues/311",
)
