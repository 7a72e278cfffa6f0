"""Word vectors are brought into (sequence, batch, features) by view instead of transpose, which mixes the sentences."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches
from nndoctor.zoo.trainer import Trained, evaluate, fit

SENTENCES, WORDS, VOCABULARY, WIDTH = 3000, 12, 200, 24


class Tagger(nn.Module):
    """A GRU over word vectors, two classes from its last state."""

    def __init__(self, view: bool) -> None:
        super().__init__()
        self.view = view
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.gru = nn.GRU(WIDTH, 32)
        self.head = nn.Linear(32, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        vectors = self.words(tokens)  # (batch, words, width)
        batch, words, width = vectors.shape
        swapped = vectors.view(words, batch, width) if self.view else vectors.transpose(0, 1)  # (words, batch, width)
        states, _ = self.gru(swapped)  # (words, batch, 32)
        logits: Tensor = self.head(states[-1])  # (batch, classes)
        return logits


def sentences(seed: int) -> tuple[Tensor, Tensor]:
    """Sentences (count, words) of two kinds that prefer different words."""
    generator = torch.Generator().manual_seed(500 + seed)
    liking = torch.softmax(torch.randn(2, VOCABULARY, generator=generator), 1)
    kind = torch.randint(2, (SENTENCES,), generator=generator)
    return torch.multinomial(liking[kind], WORDS, replacement=True, generator=generator), kind


def train(seed: int, attach: Attach, *, view: bool | str, steps: int = 250) -> Trained:
    tokens, kind = sentences(seed)
    loader = batches(tokens[:2500], kind[:2500], 32, seed=seed)
    model = seeded(seed, lambda: Tagger(view in (True, "True")))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=3e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    return Trained(run.losses, evaluate(model, loss_fn, batches(tokens[2500:], kind[2500:], 32, shuffle=False))[0])


CASE = Case(
    name="batch-dimension-mixed-view",
    diagnosis="batch-dimension-mixed",
    description="GRU over words, RMSprop: view(words, batch, width) where transpose(0, 1) was meant",
    sick=partial(train, view=True),
    cured=partial(train, view=False),
    place=("gru",),
    remedies={"view": "view"},
    source="https://github.com/Jingkang50/OpenPSG/issues/56",
)
