"""Accumulation that clears at every micro-batch: only the last eighth of each window counts."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, trained

WINDOW = 8


def train(seed: int, attach: Attach, *, every_micro_batch: bool) -> Trained:
    data = classification()
    loader = data.train_loader(16, seed=seed)
    model = seeded(seed, Mlp)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    attach(model, optimizer, loss_fn, loader=loader)
    losses, window_loss, micro_step = [], 0.0, 0
    for _epoch in range(5):
        for inputs, targets in loader:
            if every_micro_batch:
                optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets) / WINDOW
            loss.backward()
            window_loss += loss.item()
            micro_step += 1
            if micro_step % WINDOW == 0:
                optimizer.step()
                optimizer.zero_grad()
                losses.append(window_loss)
                window_loss = 0.0
    return trained(losses)


CASE = Case(
    name="gradients-cleared-in-accumulation",
    diagnosis="gradients-cleared-before-step",
    description="MLP, 8 micro-batches per step: zero_grad() before every micro-batch",
    sick=partial(train, every_micro_batch=True),
    cured=partial(train, every_micro_batch=False),
    remedies={"optimizer.zero_grad()": {"every_micro_batch": False}},
    source="https://github.com/meta-pytorch/opacus/issues/93",
)
