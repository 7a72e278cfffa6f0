"""Every weight starts at the same number: all units of a layer compute, and keep computing, the same thing."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, weights: str, steps: int = 400) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, Mlp)
    for layer in (model.fc1, model.fc2, model.fc3):
        if weights == "constant":
            nn.init.constant_(layer.weight, 0.01)
        elif weights == "kaiming_normal_":
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="bad-initialization",
    diagnosis="bad-initialization",
    description="MLP: every weight starts at 0.01",
    sick=partial(train, weights="constant"),
    cured=partial(train, weights="default"),
    place=("fc1", "fc2", "fc3"),
    remedies={"weights": "weights"},
    source="https://github.com/srenevey/neuro/issues/4",
)
