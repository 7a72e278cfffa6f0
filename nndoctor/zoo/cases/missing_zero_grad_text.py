"""A recurrent model of text that never clears its gradients, under Adam, which hides half of the damage."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches
from nndoctor.zoo.synthetic import ALPHABET, sums_in_words
from nndoctor.zoo.trainer import Trained, trained


class CharacterGru(nn.Module):
    """The next character after each: logits (batch, characters, places)."""

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(ALPHABET), 24)
        self.gru = nn.GRU(24, hidden, batch_first=True)
        self.head = nn.Linear(hidden, len(ALPHABET))

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.gru(self.embed(tokens))  # (batch, places, hidden)
        logits: Tensor = self.head(states)  # (batch, places, characters)
        return logits.transpose(1, 2)


def train(seed: int, attach: Attach, *, zero_grad: bool, steps: int = 250) -> Trained:
    text = sums_in_words(seed=seed)  # (count, 40)
    loader = batches(text[:, :-1], text[:, 1:], 32, seed=seed)
    model = seeded(seed, CharacterGru)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    attach(model, optimizer, loss_fn, loader=loader)
    losses: list[float] = []
    while len(losses) < steps:
        for given, wanted in loader:
            loss = loss_fn(model(given), wanted)
            if zero_grad:
                optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) == steps:
                break
    return trained(losses)


CASE = Case(
    name="missing-zero-grad-text",
    diagnosis="missing-zero-grad",
    description="GRU on text, Adam: the loop never calls optimizer.zero_grad()",
    sick=partial(train, zero_grad=False),
    cured=partial(train, zero_grad=True),
    remedies={"optimizer.zero_grad()": "zero_grad"},
    source="https://github.com/wenet-e2e/wekws/issues/72",
)
