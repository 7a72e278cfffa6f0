"""A layer takes the logarithm of pixels that may be zero: minus infinity, then NaN, from its very first call."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, classification
from nndoctor.zoo.models import CLASSES, PIXELS
from nndoctor.zoo.trainer import Trained, fit


class LogScale(nn.Module):
    """The logarithm of its input, kept finite by `epsilon`."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.log(inputs + self.epsilon)


class LogMlp(nn.Module):
    """ReLU features, their logarithm, and a classifier."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.features = nn.Linear(PIXELS, 64)
        self.relu = nn.ReLU()
        self.log = LogScale(epsilon)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        features = self.relu(self.features(images.flatten(1)))  # (batch, 64)
        logits: Tensor = self.head(self.log(features))  # (batch, classes)
        return logits


def train(seed: int, attach: Attach, *, epsilon: float, steps: int = 300) -> Trained:
    data = classification()
    loader = batches(data.train_inputs, data.train_targets, seed=seed)
    model = seeded(seed, partial(LogMlp, epsilon))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="nan-or-inf",
    diagnosis="nan-or-inf",
    description="MLP: log(relu(x)) without an epsilon",
    sick=partial(train, epsilon=0.0),
    cured=partial(train, epsilon=1.0),
    place=("log",),
    remedies={"epsilon": "epsilon"},
    source="https://github.com/pytorch/pytorch/pull/3336",
)
