"""An LSTM without batch_first=True reads the batch as its sequence: each picture sees those before it in the batch."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES
from nndoctor.zoo.trainer import Trained, evaluate, fit


class RowReader(nn.Module):
    """Reads a picture row by row and classifies from the last state."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(28, 48, batch_first=batch_first)
        self.head = nn.Linear(48, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        states, _ = self.lstm(images.squeeze(1))  # (batch, 28 rows, 48)
        logits: Tensor = self.head(states[:, -1])  # (batch, classes)
        return logits


def train(seed: int, attach: Attach, *, batch_first: bool | str, steps: int = 150) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, lambda: RowReader(batch_first in (True, "True")))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    return Trained(run.losses, evaluate(model, loss_fn, data.val_loader())[0])


CASE = Case(
    name="batch-dimension-mixed-lstm",
    diagnosis="batch-dimension-mixed",
    description="LSTM over the rows of pictures, Adam: batch_first is left at False",
    sick=partial(train, batch_first=False),
    cured=partial(train, batch_first=True),
    place=("lstm",),
    remedies={"batch_first": "batch_first"},
    source="https://github.com/pytorch/pytorch/issues/1538",
)
