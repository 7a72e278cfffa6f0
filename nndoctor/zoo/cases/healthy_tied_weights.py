"""A character model whose embedding is also its output layer: one parameter under two names."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches
from nndoctor.zoo.models import Gpt
from nndoctor.zoo.synthetic import ALPHABET, sums_in_words
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, steps: int = 300) -> Trained:
    text = sums_in_words(seed=seed)  # (count, 40)
    loader = batches(text[:, :-1], text[:, 1:], 32, seed=seed)
    model = seeded(seed, partial(Gpt, len(ALPHABET), 39, 48))
    nn.init.normal_(model.tokens.weight, std=0.02)
    model.head.weight = model.tokens.weight
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)
    warm_up = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 30))
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, scheduler=warm_up, clip=1.0, doctor=doctor)


CASE = Case(
    name="healthy-tied-weights",
    diagnosis=None,
    description="GPT on text: embedding and head share one tensor, warm-up by LambdaLR, clipped at 1",
    healthy=train,
    source="https://arxiv.org/abs/1608.05859",
)
