"""A loss summed over the batch and a threshold for a mean: every step is cut to the same, long length."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, rate: float) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, Mlp)
    loss_fn = nn.CrossEntropyLoss(reduction="sum")
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, 240, clip=1.0, doctor=doctor)


CASE = Case(
    name="clipping-sets-the-rate",
    diagnosis="clipping-sets-the-rate",
    description="MLP, SGD, loss summed over the batch, clipped to 1: lr=2 instead of 0.1",
    sick=partial(train, rate=2.0),
    cured=partial(train, rate=0.1),
    remedies={"lr": "rate"},
    source="https://github.com/alibaba/Pai-Megatron-Patch/issues/579",
)
