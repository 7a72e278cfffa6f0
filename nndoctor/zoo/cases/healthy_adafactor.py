"""Adafactor: second moments kept as rows and columns, and a rate relative to the size of the weights."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches
from nndoctor.zoo.models import Gpt
from nndoctor.zoo.synthetic import ALPHABET, sums_in_words
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, steps: int = 250) -> Trained:
    text = sums_in_words(seed=seed)  # (count, 40)
    loader = batches(text[:, :-1], text[:, 1:], 32, seed=seed)
    model = seeded(seed, partial(Gpt, len(ALPHABET), 39))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adafactor(model.parameters(), lr=0.03)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="healthy-adafactor",
    diagnosis=None,
    description="GPT on text under Adafactor at a rate of 0.03, which is relative to the weights",
    healthy=train,
    source="https://arxiv.org/abs/1804.04235",
)
