"""Eight sigmoid layers: each multiplies the gradient by less than a quarter, so the first ones never learn."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES, PIXELS, Mlp
from nndoctor.zoo.trainer import Trained, fit

DEPTH = 8


def train(seed: int, attach: Attach, *, activation: str, gain: float | None = None, steps: int = 400) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, partial(Mlp, (PIXELS, *[64] * (DEPTH - 1), CLASSES), getattr(nn, activation)))
    if gain is not None:
        for index in range(1, DEPTH + 1):
            layer = getattr(model, f"fc{index}")
            nn.init.normal_(layer.weight, std=gain / layer.in_features**0.5)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="vanishing-gradients",
    diagnosis="vanishing-gradients",
    description="eight-layer MLP with sigmoids instead of ReLUs",
    sick=partial(train, activation="Sigmoid"),
    cured=partial(train, activation="ReLU"),
    place=tuple(f"fc{index}" for index in range(1, DEPTH)),
    remedies={"activation": "activation", "init_gain": "gain"},
    source="https://ai.stackexchange.com/questions/16557/what-could-be-the-problem-when-a-neural-network-with-four-hidden-layers-with-the",
)
