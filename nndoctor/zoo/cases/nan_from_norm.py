"""Normalising by a root of a sum of squares without an epsilon: where a row is all zero, the gradient is NaN."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES, PIXELS
from nndoctor.zoo.trainer import Trained, fit


class UnitLength(nn.Module):
    """Its input scaled to length one."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, rows: Tensor) -> Tensor:
        return rows / torch.sqrt((rows**2).sum(dim=1, keepdim=True) + self.epsilon)


class Cosine(nn.Module):
    """ReLU features of unit length and a classifier over them."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.features = nn.Linear(PIXELS, 4)
        self.relu = nn.ReLU()
        self.unit = UnitLength(epsilon)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        features = self.relu(self.features(images.flatten(1)))  # (batch, 4), all zero for some pictures
        logits: Tensor = self.head(self.unit(features))  # (batch, classes)
        return logits


def train(seed: int, attach: Attach, *, epsilon: float, steps: int = 300) -> Trained:
    data = classification()
    loader = data.train_loader(128, seed=seed)
    model = seeded(seed, partial(Cosine, epsilon))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="nan-or-inf-norm",
    diagnosis="nan-or-inf",
    description="features divided by their length without an epsilon; some are all zero",
    sick=partial(train, epsilon=0.0),
    cured=partial(train, epsilon=1e-6),
    place=("unit",),
    remedies={"epsilon": "epsilon"},
    source="https://github.com/richzhang/PerceptualSimilarity/issues/69",
)
