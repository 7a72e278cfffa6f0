"""A batch taken once before the loop, as for a quick check that was never taken out again."""

from __future__ import annotations

from functools import partial
from itertools import chain, repeat

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches
from nndoctor.zoo.models import Gpt
from nndoctor.zoo.synthetic import ALPHABET, sums_in_words
from nndoctor.zoo.trainer import Trained


def train(seed: int, attach: Attach, *, repeated: bool, steps: int = 200) -> Trained:
    text = sums_in_words(seed=seed)  # (count, 40)
    loader = batches(text[:3500, :-1], text[:3500, 1:], 16, seed=seed)
    model = seeded(seed, partial(Gpt, len(ALPHABET), 39))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    attach(model, optimizer, loss_fn, loader=loader)
    losses = []
    source = repeat(next(iter(loader))) if repeated else chain.from_iterable(repeat(loader))
    for _step in range(steps):
        given, wanted = next(source)
        optimizer.zero_grad()
        loss = loss_fn(model(given), wanted)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        unseen = loss_fn(model(text[3500:, :-1]), text[3500:, 1:]).item()
    return Trained(tuple(losses), unseen)


CASE = Case(
    name="same-batch-repeated-text",
    diagnosis="same-batch-repeated",
    description="GPT on text: batch = next(iter(loader)) once before the loop",
    sick=partial(train, repeated=True),
    cured=partial(train, repeated=False),
    remedies={"batches": {"repeated": False}},
    source="https://github.com/ZhaoJ9014/face.evoLVe/pull/39",
)
