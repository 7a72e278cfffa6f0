"""A small GPT on pictures as sentences of pixels: a language-model loss, token inputs, tied to no class count."""

from __future__ import annotations

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import pixel_tokens
from nndoctor.zoo.models import Gpt
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, steps: int = 300) -> Trained:
    data = pixel_tokens()
    loader = data.train_loader(32, seed=seed)
    model = seeded(seed, Gpt)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95))
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, clip=1.0, doctor=doctor)


CASE = Case(
    name="healthy-gpt",
    diagnosis=None,
    description="GPT over 48 pixel tokens, AdamW, integer inputs",
    healthy=train,
    source="https://cdn.openai.com/papers/Generative_Pretraining_from_Pixels_V2.pdf",
)
