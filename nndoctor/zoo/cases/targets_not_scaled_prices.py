"""House prices in euros under SGD: the first gradient is a hundred thousand times too large."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.synthetic import house_prices
from nndoctor.zoo.trainer import Trained, fit

EUROS = 100_000.0
TYPICAL = 300_000.0


def train(seed: int, attach: Attach, *, mean: float, std: float, steps: int = 400) -> Trained:
    data = house_prices(seed=seed)
    prices = (data.train_targets * EUROS + TYPICAL - mean) / std  # (count, 1)
    loader = batches(data.train_inputs, prices, 32, seed=seed)
    model = seeded(seed, partial(Mlp, (8, 64, 32, 1), nn.SiLU))
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    return Trained(run.losses, run.final_loss / prices.var().item())  # unexplained share of the variance


CASE = Case(
    name="targets-not-scaled-prices",
    diagnosis="targets-not-scaled",
    description="regression, SGD: prices around 300 000 instead of standardised ones",
    sick=partial(train, mean=0.0, std=1.0),
    cured=partial(train, mean=TYPICAL, std=EUROS),
    remedies={"target_mean": "mean", "target_std": "std"},
    source="https://github.com/rstudio-conf-2020/dl-keras-tf/issues/9",
)
