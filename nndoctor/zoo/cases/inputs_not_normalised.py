"""Pixels from 0 to 255 go into the net as they are; a rate that suits normalised inputs throws it about."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, classification, load_images
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, raw: bool, mean: float = 0.0, std: float = 1.0, steps: int = 400) -> Trained:
    data = classification()
    inputs = load_images().train_images.float() if raw else data.train_inputs
    loader = batches((inputs - mean) / std, data.train_targets, seed=seed)
    model = seeded(seed, Mlp)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="inputs-not-normalised",
    diagnosis="inputs-not-normalised",
    description="MLP, SGD: raw pixels 0..255 instead of standardised ones",
    sick=partial(train, raw=True),
    cured=partial(train, raw=False),
    remedies={"input_mean": "mean", "input_std": "std"},
    source="https://stats.stackexchange.com/questions/367057/bad-performance-with-relu-activation-function-on-mnist-data-set",
)
