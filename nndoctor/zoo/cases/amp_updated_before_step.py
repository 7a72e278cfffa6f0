"""scaler.update() stands between unscale_ and step: the scaler forgets, divides a second time, and refuses the next batch."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import BatchNormCnn
from nndoctor.zoo.trainer import Trained, trained

STEPS = 110


def train(seed: int, attach: Attach, *, updated_first: bool) -> Trained:
    data = classification()
    loader = data.train_loader(32, seed=seed)
    model = seeded(seed, BatchNormCnn)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu")
    attach(model, optimizer, loss_fn, loader=loader)
    losses: list[float] = []
    while len(losses) < STEPS:
        for inputs, targets in loader:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_fn(model(inputs), targets)
            scaler.scale(loss).backward()
            try:
                scaler.unscale_(optimizer)
            except RuntimeError:
                return trained([*losses, loss.item()])  # where the script would have ended
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            if updated_first:
                scaler.update()
                scaler.step(optimizer)
            else:
                scaler.step(optimizer)
                scaler.update()
            losses.append(loss.item())
            if len(losses) == STEPS:
                break
    return trained(losses)


CASE = Case(
    name="amp-updated-before-step",
    diagnosis="amp-misconfigured",
    description="CNN with BatchNorm, SGD: scaler.update() between scaler.unscale_() and scaler.step()",
    sick=partial(train, updated_first=True),
    cured=partial(train, updated_first=False),
    remedies={"scaler.update()": {"updated_first": False}},
    source="https://docs.pytorch.org/docs/stable/amp.html#gradient-scaling",
)
