"""An LSTM over the rows of an image with gradient clipping: its gates saturate, as gates do."""

from __future__ import annotations

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LstmClassifier
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, steps: int = 350) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, LstmClassifier)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, clip=1.0, doctor=doctor)


CASE = Case(
    name="healthy-lstm",
    diagnosis=None,
    description="LSTM over image rows, Adam, gradients clipped at 1",
    healthy=train,
)
