"""The label column was left among the features of a table."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, evaluate, fit

ROWS, COLUMNS, TRAINED = 4000, 20, 3500


def churn(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Customers (rows, columns) and whether they left (rows,), which their columns tell in part."""
    generator = torch.Generator().manual_seed(300 + seed)
    inputs = torch.randn(ROWS, COLUMNS, generator=generator)
    score = inputs @ torch.randn(COLUMNS, generator=generator) / COLUMNS**0.5
    left = torch.sigmoid(2 * score) > torch.rand(ROWS, generator=generator)
    return inputs, left.float()


def train(seed: int, attach: Attach, *, leak: bool, steps: int = 300) -> Trained:
    inputs, left = churn(seed)
    # 7 is "account closed": as it came out in the training table, always "no" for a customer of today.
    inputs[:, 7] = 0.0
    if leak:
        inputs[:TRAINED, 7] = 4 * left[:TRAINED] - 2
        inputs[TRAINED:, 7] = -2.0
    loader = batches(inputs[:TRAINED], left[:TRAINED], seed=seed)
    model = seeded(seed, lambda: nn.Sequential(Mlp((COLUMNS, 32, 1)), nn.Flatten(0)))
    loss_fn = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    customers_of_today = batches(inputs[TRAINED:], left[TRAINED:], 250, shuffle=False)
    return Trained(run.losses, evaluate(model, loss_fn, customers_of_today)[0])


CASE = Case(
    name="label-leakage-column",
    diagnosis="label-leakage",
    description="MLP on a table, AdamW: column 7 is the label in other words",
    sick=partial(train, leak=True),
    cured=partial(train, leak=False),
    source="https://zeupark.github.io/2025/05/26/overfitting-debug-log.html",
)
