"""An MLP whose Adam runs at a rate copied from an SGD recipe: the loss jumps into the hundreds and stays bad."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, rate: float, steps: int = 400) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, Mlp)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="learning-rate-too-high-adam",
    diagnosis="learning-rate-too-high",
    description="MLP, Adam: lr=0.3 (an SGD habit) instead of 1e-3",
    sick=partial(train, rate=0.3),
    cured=partial(train, rate=1e-3),
    remedies={"lr": "rate"},
    source="https://github.com/OpenNMT/OpenNMT-py/issues/805",
)
