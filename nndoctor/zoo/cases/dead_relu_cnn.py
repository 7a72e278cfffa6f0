"""Most channels of a convolution are shut by their biases; the net trains on what little comes through."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, bias: float, rate: float = 1e-3, steps: int = 350) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, LeNet)
    with torch.no_grad():
        model.conv2.bias[:14] += bias
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="dead-relu-cnn",
    diagnosis="dead-relu",
    description="LeNet: 14 of the 16 channels of conv2 start with a bias of -10",
    sick=partial(train, bias=-10.0),
    cured=partial(train, bias=0.0),
    place=("relu2", "conv2"),
    remedies={"bias": "bias", "lr": "rate"},
    source="https://github.com/keras-team/keras/issues/7057",
)
