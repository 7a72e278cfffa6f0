"""A plain recurrent net whose recurrence amplifies: the gradient grows with every time step it goes back."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import RnnClassifier
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, clip: float | None, steps: int = 350) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, partial(RnnClassifier, pixels=7, gain=1.06))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, clip=clip, doctor=doctor)


CASE = Case(
    name="exploding-gradients",
    diagnosis="exploding-gradients",
    description="ReLU recurrent net over 112 time steps, without gradient clipping",
    sick=partial(train, clip=None),
    cured=partial(train, clip=1.0),
    place=("rnn",),
    remedies={"clip_grad_norm": "clip", "max_norm": "clip"},
    source="https://github.com/Marcovaldong/lstmp.pytorch/issues/2",
)
