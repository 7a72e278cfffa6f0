"""A text classifier whose two sources were written into one file, one after the other."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches
from nndoctor.zoo.trainer import Trained, evaluate, fit

SENTENCES, WORDS, VOCABULARY = 3000, 20, 400


class BagOfWords(nn.Module):
    """The mean of word vectors, a hidden layer, two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, 24)
        self.hidden = nn.Linear(24, 32)
        self.relu = nn.ReLU()
        self.head = nn.Linear(32, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        mean = self.words(tokens).mean(1)  # (batch, 24)
        logits: Tensor = self.head(self.relu(self.hidden(mean)))  # (batch, 2)
        return logits


def reviews(seed: int) -> tuple[Tensor, Tensor]:
    """Sentences (count, words) of two kinds that prefer different words, all of one kind before the other."""
    generator = torch.Generator().manual_seed(400 + seed)
    liking = torch.softmax(0.7 * torch.randn(2, VOCABULARY, generator=generator), 1)
    kind = torch.arange(2).repeat_interleave(SENTENCES // 2)
    return torch.multinomial(liking[kind], WORDS, replacement=True, generator=generator), kind


def train(seed: int, attach: Attach, *, shuffle: bool | str, steps: int = 300) -> Trained:
    tokens, kind = reviews(seed)
    held_out = torch.arange(len(kind)) % 6 == 0
    loader = batches(tokens[~held_out], kind[~held_out], 32, seed=seed, shuffle=shuffle in (True, "True"))
    model = seeded(seed, BagOfWords)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    return Trained(run.losses, evaluate(model, loss_fn, batches(tokens[held_out], kind[held_out], 250, shuffle=False))[0])


CASE = Case(
    name="data-not-shuffled-runs",
    diagnosis="data-not-shuffled",
    description="bag of words, Adam: all sentences of one class before those of the other, and no shuffling",
    sick=partial(train, shuffle=False),
    cured=partial(train, shuffle=True),
    remedies={"shuffle": "shuffle"},
    source="https://github.com/open-mmlab/mmpretrain/issues/892",
)
