"""A transformer whose linear layers all start from a standard normal, as if there were no fan-in."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches
from nndoctor.zoo.models import Gpt
from nndoctor.zoo.synthetic import ALPHABET, sums_in_words
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, std: float | None, steps: int = 250) -> Trained:
    text = sums_in_words(seed=seed)  # (count, 40)
    loader = batches(text[:, :-1], text[:, 1:], 32, seed=seed)
    model = seeded(seed, partial(Gpt, len(ALPHABET), 39))
    if std is not None:
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=std)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, clip=1.0, doctor=doctor)


CASE = Case(
    name="bad-initialization-transformer",
    diagnosis="bad-initialization",
    description="GPT on text: every linear layer from a standard normal instead of one scaled by the fan-in",
    sick=partial(train, std=1.0),
    cured=partial(train, std=None),
    place=("blocks", "head"),
    remedies={"init_std_factor": "std"},
    source="https://github.com/tenstorrent/tt-metal/pull/16815",
)
