"""A language model on short sentences in a long window: nine positions of ten are padding, and count in the loss."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, pixel_tokens
from nndoctor.zoo.models import Gpt
from nndoctor.zoo.trainer import Trained, fit

PAD, LEVELS, WINDOW = 0, 16, 48


def padded_sentences(seed: int, count: int = 3000) -> Tensor:
    """Brightness of the middle of pictures, pixel by pixel, as tokens from 1 on, (count, 49): 2 to 7 of them, then padding."""
    data = pixel_tokens()
    pixels = data.train_inputs[:count, 14 : 14 + WINDOW // 2] + 1  # (count, 24)
    lengths = torch.randint(2, 8, (count, 1), generator=torch.Generator().manual_seed(seed))
    sentences = torch.full((count, WINDOW + 1), PAD)
    sentences[:, : pixels.shape[1]] = torch.where(torch.arange(pixels.shape[1]) < lengths, pixels, PAD)
    return sentences


def train(seed: int, attach: Attach, *, ignore_index: float, steps: int = 150) -> Trained:
    sentences = padded_sentences(seed)
    train_part, val_part = sentences[:2500], sentences[2500:]
    loader = batches(train_part[:, :-1], train_part[:, 1:], 32, seed=seed)
    model = seeded(seed, partial(Gpt, vocabulary=LEVELS + 1))
    loss_fn = nn.CrossEntropyLoss(ignore_index=int(ignore_index))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    with torch.no_grad():
        real = nn.functional.cross_entropy(model(val_part[:, :-1]), val_part[:, 1:], ignore_index=PAD).item()
    return Trained(run.losses, real)


CASE = Case(
    name="padding-in-language-model",
    diagnosis="padding-in-loss",
    description="GPT, SGD: short sentences padded to 48 positions, ignore_index left at -100",
    sick=partial(train, ignore_index=-100),
    cured=partial(train, ignore_index=PAD),
    remedies={"ignore_index": "ignore_index"},
    source="https://github.com/lukas-blecher/LaTeX-OCR/issues/305",
)
