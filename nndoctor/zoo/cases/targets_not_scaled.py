"""A regression on targets in the ten thousands: the output needs half the run to reach their mean."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import Split, ink_regression
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, evaluate, fit


def train(seed: int, attach: Attach, *, scaled: bool, mean: float = 0.0, std: float = 1.0, steps: int = 400) -> Trained:
    data = ink_regression(scaled=scaled)
    data = Split(data.train_inputs, (data.train_targets - mean) / std, data.val_inputs, (data.val_targets - mean) / std)
    loader = data.train_loader(seed=seed)
    model = seeded(seed, partial(Mlp, (data.train_inputs.shape[1], 64, 32, 1)))
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    error, _ = evaluate(model, loss_fn, data.val_loader())
    return Trained(run.losses, error / data.train_targets.var().item())  # unexplained share of the variance


CASE = Case(
    name="targets-not-scaled",
    diagnosis="targets-not-scaled",
    description="regression MLP, Adam: targets from 0 to 90 000 instead of standardised ones",
    sick=partial(train, scaled=False),
    cured=partial(train, scaled=True),
    remedies={"target_mean": "mean", "target_std": "std"},
    source="https://stats.stackexchange.com/questions/409000/should-we-normalize-target-data-as-well-as-input-data",
)
