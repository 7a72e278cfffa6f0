"""The model is built a second time after the optimizer, which goes on to update the first one."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, optimizer_last: bool | str, steps: int = 200) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, Mlp)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model = seeded(seed, Mlp)  # "start from fresh weights"
    if optimizer_last:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    loss_fn = nn.CrossEntropyLoss()
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="optimizer-stale-model-rebuilt",
    diagnosis="optimizer-holds-stale-parameters",
    description="MLP, SGD with momentum: the model is built again after the optimizer was made",
    sick=partial(train, optimizer_last=False),
    cured=partial(train, optimizer_last=True),
    place=("fc1", "fc2", "fc3"),
    remedies={"optimizer = Optimizer(model.parameters())": "optimizer_last"},
    source="https://github.com/spro/practical-pytorch/issues/9",
)
