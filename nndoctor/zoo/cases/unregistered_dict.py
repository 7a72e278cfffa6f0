"""Embedding tables of a model for tabular tokens, as parameters in a dict: none of them ever changes."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import pixel_tokens
from nndoctor.zoo.trainer import Trained, fit

LEVELS = 16


class NextPixel(nn.Module):
    """Predicts the next grey value with a GRU over learnt tables for value and position."""

    def __init__(self, registered: bool | str, width: int = 24) -> None:
        super().__init__()
        tables = {
            "value": nn.Parameter(0.02 * torch.randn(LEVELS, width)),
            "position": nn.Parameter(0.02 * torch.randn(48, width)),
        }
        self.tables = nn.ParameterDict(tables) if registered else tables
        self.memory = nn.GRU(width, width, batch_first=True)
        self.out = nn.Linear(width, LEVELS)

    def forward(self, tokens: Tensor) -> Tensor:
        rows = self.tables["value"][tokens] + self.tables["position"][: tokens.shape[1]]  # (batch, tokens, width)
        states, _ = self.memory(rows)  # (batch, tokens, width)
        logits: Tensor = self.out(states).transpose(1, 2)  # (batch, levels, tokens)
        return logits


def train(seed: int, attach: Attach, *, registered: bool | str, steps: int = 150) -> Trained:
    data = pixel_tokens()
    loader = data.train_loader(32, seed=seed)
    model = seeded(seed, partial(NextPixel, registered))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    return Trained(run.losses, None)  # a GRU makes do with random tables


CASE = Case(
    name="unregistered-dict",
    diagnosis="unregistered-module",
    description="GRU over grey values, Adam: its embedding tables are parameters in a plain dict",
    sick=partial(train, registered=False),
    cured=partial(train, registered=True),
    place=("tables['value']", "tables['position']"),
    remedies={"container": "registered"},
    source="https://github.com/pytorch/pytorch/issues/632",
)
