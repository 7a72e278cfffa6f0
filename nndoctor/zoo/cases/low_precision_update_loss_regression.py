"""A regression in bfloat16 without a float32 copy of its weights: it hardly moves."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import ink_regression
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, trained

STEPS = 260


def train(seed: int, attach: Attach, *, dtype: str) -> Trained:
    data = ink_regression()
    loader = data.train_loader(seed=seed)
    weights = getattr(torch, dtype)
    model = seeded(seed, lambda: Mlp((14 * 28, 96, 48, 1), nn.SiLU)).to(weights)
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, betas=(0.9, 0.95))
    attach(model, optimizer, loss_fn, loader=loader)
    losses: list[float] = []
    while len(losses) < STEPS:
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(inputs.to(weights)).float(), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) == STEPS:
                break
    return trained(losses)


CASE = Case(
    name="low-precision-update-loss-regression",
    diagnosis="low-precision-update-loss",
    description="MLP regression, AdamW at 2e-5: weights in bfloat16 instead of float32",
    sick=partial(train, dtype="bfloat16"),
    cured=partial(train, dtype="float32"),
    remedies={"weights_dtype": "dtype"},
    source="https://github.com/workofart/ml-by-hand/pull/85",
)
