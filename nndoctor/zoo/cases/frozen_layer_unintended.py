"""The lines that freeze a pre-trained backbone, kept for a model that starts at random."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, frozen: bool, steps: int = 350) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, LeNet)
    if frozen:
        for layer in (model.conv1, model.conv2, model.fc1):
            layer.requires_grad_(False)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="frozen-layer-unintended",
    diagnosis="frozen-layer-unintended",
    description="LeNet from scratch: conv1, conv2 and fc1 are frozen at their random start",
    sick=partial(train, frozen=True),
    cured=partial(train, frozen=False),
    place=("conv1", "conv2", "fc1"),
    remedies={"requires_grad": {"frozen": False}},
    source="https://github.com/pytorch/vision/issues/2164",
)
