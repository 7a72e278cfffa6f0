"""Validation under no_grad and in train mode: dropout spoils the figure that decides which checkpoint is kept."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES, PIXELS
from nndoctor.zoo.trainer import Trained


class Classifier(nn.Module):
    """An MLP with dropout behind each hidden layer."""

    def __init__(self, width: int = 96, dropout: float = 0.5) -> None:
        super().__init__()
        self.fc1 = nn.Linear(PIXELS, width)
        self.drop1 = nn.Dropout(dropout)
        self.fc2 = nn.Linear(width, width)
        self.drop2 = nn.Dropout(dropout)
        self.out = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.drop1(torch.relu(self.fc1(images.flatten(1))))  # (batch, width)
        hidden = self.drop2(torch.relu(self.fc2(hidden)))  # (batch, width)
        logits: Tensor = self.out(hidden)  # (batch, classes)
        return logits


def train(seed: int, attach: Attach, *, switch: bool) -> Trained:
    data = classification().first(2560)
    loader, val_loader = data.train_loader(seed=seed), data.val_loader()
    model = seeded(seed, Classifier)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    losses, val_loss = [], 0.0
    for _epoch in range(4):
        model.train()
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        if switch:
            model.eval()
        with torch.no_grad():
            found = [loss_fn(model(inputs), targets).item() for inputs, targets in val_loader]
        val_loss = sum(found) / len(found)
        doctor.observe(val_loss=val_loss)
    return Trained(tuple(losses), val_loss)


CASE = Case(
    name="train-mode-during-eval",
    diagnosis="train-mode-during-eval",
    description="MLP with dropout, Adam: validation runs under no_grad but in train mode",
    sick=partial(train, switch=False),
    cured=partial(train, switch=True),
    place=("drop1", "drop2"),
    remedies={"model.eval()": "switch"},
    source="https://github.com/udacity/deep-learning-v2-pytorch/issues/3",
    onset=41,
)
