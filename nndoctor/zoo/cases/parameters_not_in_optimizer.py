"""The optimizer was given the head alone; the trainable layers below it stay at their random start."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, head_only: bool, steps: int = 350) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, LeNet)
    loss_fn = nn.CrossEntropyLoss()
    given = model.fc3.parameters() if head_only else model.parameters()
    optimizer = torch.optim.Adam(given, lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="parameters-not-in-optimizer",
    diagnosis="parameters-not-in-optimizer",
    description="LeNet: the optimizer holds fc3 alone, the other layers require gradients",
    sick=partial(train, head_only=True),
    cured=partial(train, head_only=False),
    place=("conv1", "conv2", "fc1", "fc2"),
    remedies={"optimizer_parameters": {"head_only": False}},
    source="https://github.com/ohhhyeahhh/SiamCAR/issues/18",
)
