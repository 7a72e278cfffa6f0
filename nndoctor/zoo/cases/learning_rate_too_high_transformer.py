"""A small transformer at a rate three hundred times too large: what it learns is undone by the next step."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import RowTransformer
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, rate: float, steps: int = 300) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, RowTransformer)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="learning-rate-too-high-transformer",
    diagnosis="learning-rate-too-high",
    description="transformer encoder, AdamW: lr=0.3 instead of 1e-3",
    sick=partial(train, rate=0.3),
    cured=partial(train, rate=1e-3),
    remedies={"lr": "rate"},
    source="https://github.com/google-research/albert/issues/29",
)
