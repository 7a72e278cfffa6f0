"""Mixed precision was added to a loop that clips: the gradients are clipped while they carry the loss scale."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, trained

STEPS = 150


def train(seed: int, attach: Attach, *, unscale_first: bool) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, Mlp)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu")
    attach(model, optimizer, loss_fn, loader=loader)
    losses: list[float] = []
    while len(losses) < STEPS:
        for inputs, targets in loader:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16):
                loss = loss_fn(model(inputs), targets)
            scaler.scale(loss).backward()
            if unscale_first:
                scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.item())
            if len(losses) == STEPS:
                break
    return trained(losses)


CASE = Case(
    name="clip-before-unscale",
    diagnosis="clip-before-unscale",
    description="MLP, SGD, float16: clip_grad_norm_() without scaler.unscale_() before it",
    sick=partial(train, unscale_first=False),
    cured=partial(train, unscale_first=True),
    remedies={"scaler.unscale_(optimizer)": "unscale_first"},
    source="https://github.com/milesial/Pytorch-UNet/issues/468",
)
