"""The probability of keeping passed as that of dropping: nine values of ten are gone in training."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES, PIXELS, BatchNormCnn
from nndoctor.zoo.trainer import Trained, evaluate, fit


class DropoutMlp(nn.Module):
    """Two hidden layers, each with a dropout behind it."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(PIXELS, 64)
        self.drop1 = nn.Dropout(dropout)
        self.fc2 = nn.Linear(64, 64)
        self.drop2 = nn.Dropout(dropout)
        self.fc3 = nn.Linear(64, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.drop1(torch.relu(self.fc1(images.flatten(1))))  # (batch, 64)
        hidden = self.drop2(torch.relu(self.fc2(hidden)))  # (batch, 64)
        logits: Tensor = self.fc3(hidden)  # (batch, classes)
        return logits


def train(seed: int, attach: Attach, *, dropout: float, network: type[nn.Module], rate: float, steps: int = 330) -> Trained:
    data = classification().first(4800)
    loader = data.train_loader(seed=seed)
    model = seeded(seed, partial(network, dropout=dropout))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, val_loader=data.val_loader(), doctor=doctor)
    error, _ = evaluate(model, loss_fn, data.val_loader())
    return Trained(run.losses, error)


CASE = Case(
    name="dropout-keep-probability-mlp",
    diagnosis="dropout-too-high",
    description="MLP, Adam: nn.Dropout(0.9) behind both hidden layers, meant as the share that is kept",
    sick=partial(train, dropout=0.9, network=DropoutMlp, rate=1e-3),
    cured=partial(train, dropout=0.1, network=DropoutMlp, rate=1e-3),
    place=("drop1", "drop2"),
    remedies={"dropout": "dropout"},
    source="https://github.com/piergiaj/pytorch-i3d/issues/58",
)

CNN = Case(
    name="dropout-keep-probability-cnn",
    diagnosis="dropout-too-high",
    description="CNN with batch normalisation, Adam: nn.Dropout(0.95) before the classifier",
    sick=partial(train, dropout=0.95, network=BatchNormCnn, rate=2e-3, steps=290),
    cured=partial(train, dropout=0.05, network=BatchNormCnn, rate=2e-3, steps=290),
    place=("dropout",),
    remedies={"dropout": "dropout"},
    source="https://github.com/hassony2/kinetics_i3d_pytorch/issues/6",
)
