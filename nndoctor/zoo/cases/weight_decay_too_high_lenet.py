"""Weight decay of 0.1 in SGD: it takes more from the weights than the gradient gives them."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, weight_decay: float) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, LeNet)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=weight_decay)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, 160, doctor=doctor)


CASE = Case(
    name="weight-decay-too-high",
    diagnosis="weight-decay-too-high",
    description="LeNet, SGD with momentum: weight_decay=0.1 instead of 5e-4",
    sick=partial(train, weight_decay=0.1),
    cured=partial(train, weight_decay=5e-4),
    remedies={"weight_decay": "weight_decay"},
    source="https://github.com/tinghuiz/SfMLearner/issues/34",
)
