"""A character model under AdamW at a rate that fits SGD: the first steps throw the embeddings away."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches
from nndoctor.zoo.models import Gpt
from nndoctor.zoo.synthetic import ALPHABET, sums_in_words
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, rate: float, steps: int = 250) -> Trained:
    text = sums_in_words(seed=seed)  # (count, 40)
    loader = batches(text[:, :-1], text[:, 1:], 32, seed=seed)
    model = seeded(seed, partial(Gpt, len(ALPHABET), 39))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="learning-rate-too-high-text",
    diagnosis="learning-rate-too-high",
    description="GPT on text, AdamW: lr=0.5 instead of 3e-3",
    sick=partial(train, rate=0.5),
    cured=partial(train, rate=3e-3),
    remedies={"lr": "rate"},
    source="https://github.com/rajveermalviya/language-modeling/issues/3",
)
