"""BatchNorm1d over batches of two: +1 and -1 are all that is left of any input."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES, PIXELS
from nndoctor.zoo.trainer import Trained, evaluate, fit

STEPS = 300


class NormalisedMlp(nn.Module):
    """Two hidden layers, each with batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(PIXELS, 64)
        self.bn1 = nn.BatchNorm1d(64)
        self.fc2 = nn.Linear(64, 32)
        self.bn2 = nn.BatchNorm1d(32)
        self.relu = nn.ReLU()
        self.head = nn.Linear(32, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.relu(self.bn1(self.fc1(images.flatten(1))))  # (batch, 64)
        hidden = self.relu(self.bn2(self.fc2(hidden)))  # (batch, 32)
        logits: torch.Tensor = self.head(hidden)  # (batch, classes)
        return logits


def train(seed: int, attach: Attach, *, batch_size: float) -> Trained:
    data = classification()
    loader = data.train_loader(int(batch_size), seed=seed)
    model = seeded(seed, NormalisedMlp)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, STEPS, doctor=doctor)
    return Trained(run.losses, evaluate(model, loss_fn, data.val_loader())[0])


CASE = Case(
    name="batchnorm-small-batch",
    diagnosis="batchnorm-small-batch",
    description="MLP with BatchNorm1d, Adam: batches of 2 instead of 32",
    sick=partial(train, batch_size=2),
    cured=partial(train, batch_size=32),
    place=("bn1", "bn2"),
    remedies={"batch_size": "batch_size"},
    source="https://github.com/abhi1kumar/DEVIANT/issues/12",
)
