"""Half precision with a gradient scaler: the first steps overflow and are skipped until the scale has settled."""

from __future__ import annotations

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, trained


def train(seed: int, attach: Attach, *, steps: int = 160) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, LeNet)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, growth_interval=50)
    attach(model, optimizer, loss_fn, loader=loader)
    losses: list[float] = []
    while len(losses) < steps:
        for inputs, targets in loader:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16):
                loss = loss_fn(model(inputs), targets)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.item())
            if len(losses) == steps:
                break
    return trained(losses)


CASE = Case(
    name="healthy-grad-scaler",
    diagnosis=None,
    description="float16 autocast with GradScaler: steps are skipped while the scale settles and each time it grows",
    healthy=train,
    source="https://docs.pytorch.org/docs/stable/notes/amp_examples.html",
)
