"""A recurrent net that clips after every window of accumulation, before the scaler has taken its factor off."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LstmClassifier
from nndoctor.zoo.trainer import Trained, trained

WINDOW = 2
STEPS = 110


def train(seed: int, attach: Attach, *, unscale_first: bool) -> Trained:
    data = classification()
    loader = data.train_loader(32, seed=seed)
    model = seeded(seed, LstmClassifier)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, nesterov=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14)
    attach(model, optimizer, loss_fn, loader=loader)
    losses: list[float] = []
    window_loss, micro_step = 0.0, 0
    while len(losses) < STEPS:
        for inputs, targets in loader:
            loss = loss_fn(model(inputs), targets) / WINDOW
            scaler.scale(loss).backward()
            window_loss += loss.item()
            micro_step += 1
            if micro_step % WINDOW:
                continue
            if unscale_first:
                scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), max_norm=0.5)
            scaler.step(optimizer)
            scaler.update()
            model.zero_grad(set_to_none=False)
            losses.append(window_loss)
            window_loss = 0.0
            if len(losses) == STEPS:
                break
    return trained(losses)


CASE = Case(
    name="clip-before-unscale-lstm",
    diagnosis="clip-before-unscale",
    description="LSTM, SGD with Nesterov momentum, 2 micro-batches per step: clipped to 0.5 before unscaling",
    sick=partial(train, unscale_first=False),
    cured=partial(train, unscale_first=True),
    remedies={"scaler.unscale_(optimizer)": "unscale_first"},
    source="https://github.com/Lightning-AI/pytorch-lightning/issues/9599",
)
