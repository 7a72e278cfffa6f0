"""A clipping threshold of 0.001 where gradients have a norm of 0.2: steps are 200 times too short."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, max_norm: float) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, LeNet)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, 170, doctor=doctor, clip=max_norm)


CASE = Case(
    name="gradient-clipping-too-tight",
    diagnosis="gradient-clipping-too-tight",
    description="LeNet, SGD with momentum: clip_grad_norm_(..., 0.001) instead of 1",
    sick=partial(train, max_norm=0.001),
    cured=partial(train, max_norm=1.0),
    remedies={"clip_grad_norm": "max_norm"},
    source="https://github.com/wandb/senpai/pull/978",
)
