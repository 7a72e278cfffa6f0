"""All weights of the hidden layers start at zero, so that almost no gradient reaches them."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, weights: str, steps: int = 300) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, LeNet)
    for layer in (model.conv1, model.conv2, model.fc1, model.fc2, model.fc3):
        if weights == "zero":
            nn.init.zeros_(layer.weight)
        elif weights == "kaiming_normal_":
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="bad-initialization-zero",
    diagnosis="bad-initialization",
    description="LeNet: every weight starts at 0",
    sick=partial(train, weights="zero"),
    cured=partial(train, weights="default"),
    place=("conv1", "conv2", "fc1", "fc2", "fc3"),
    remedies={"weights": "weights"},
    source="https://github.com/yz93/LAVT-RIS/issues/25",
)
