"""Batch normalisation is called and its result thrown away: the deep net trains as if it were not there."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES
from nndoctor.zoo.trainer import Trained, fit


class Cnn(nn.Module):
    """Four convolutions; with `assigned` the normalisations behind them take effect."""

    def __init__(self, assigned: bool) -> None:
        super().__init__()
        widths = (1, 8, 16, 16, 32)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.relus = nn.ModuleList(nn.ReLU() for _ in widths[1:])
        self.head = nn.Linear(32 * 2 * 2, CLASSES)
        self.assigned = assigned

    def forward(self, images: Tensor) -> Tensor:
        maps = images
        for conv, norm, relu in zip(self.convs, self.norms, self.relus, strict=True):
            maps = conv(maps)
            normalised = norm(maps)
            maps = relu(normalised if self.assigned else maps)
        logits: Tensor = self.head(maps.flatten(1))  # (batch, classes)
        return logits


def train(seed: int, attach: Attach, *, assigned: str, steps: int = 150) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, partial(Cnn, assigned == "yes"))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="unhelpful-layer-not-assigned",
    diagnosis="unhelpful-layer",
    description="CNN, SGD: the result of each BatchNorm2d is thrown away",
    sick=partial(train, assigned="no"),
    cured=partial(train, assigned="yes"),
    place=("norms",),
    remedies={"assigned": "assigned"},
    source="https://github.com/nntrainer/nntrainer/issues/771",
)
