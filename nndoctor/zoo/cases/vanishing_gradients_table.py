"""Seven sigmoid layers on a table with one logit: the first of them never hear of the loss."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.synthetic import customers
from nndoctor.zoo.trainer import Trained, fit

DEPTH = 8


def train(
    seed: int, attach: Attach, *, activation: str, gain: float | None = None, steps: int = 450
) -> Trained:
    data = customers(seed=seed)
    loader = batches(data.train_inputs, data.train_targets.float().unsqueeze(1), 64, seed=seed)
    model = seeded(seed, partial(Mlp, (data.train_inputs.shape[1], *[48] * (DEPTH - 1), 1), getattr(nn, activation)))
    if gain is not None:
        for index in range(1, DEPTH + 1):
            layer = getattr(model, f"fc{index}")
            nn.init.normal_(layer.weight, std=gain / layer.in_features**0.5)
    loss_fn = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="vanishing-gradients-table",
    diagnosis="vanishing-gradients",
    description="table, one logit: seven hidden layers of sigmoids instead of ReLUs",
    sick=partial(train, activation="Sigmoid"),
    cured=partial(train, activation="ReLU", gain=2**0.5),  # with the initialisation that belongs to ReLUs (He et al. 2015)
    place=tuple(f"fc{index}" for index in range(1, DEPTH)),
    remedies={"activation": "activation", "init_gain": "gain"},
    source="https://github.com/MollyZhang/Multi-task-TCGA-learning/issues/15",
)
