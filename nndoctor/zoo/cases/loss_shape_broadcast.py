"""Predictions (N, 1) against targets (N,): every prediction is compared with every target."""

from __future__ import annotations

import warnings
from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, ink_regression
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, evaluate, fit


def train(seed: int, attach: Attach, *, squeezed: bool, steps: int = 400) -> Trained:
    data = ink_regression()
    targets = data.train_targets.squeeze(1) if squeezed else data.train_targets
    loader = batches(data.train_inputs, targets, seed=seed)
    model = seeded(seed, partial(Mlp, (data.train_inputs.shape[1], 64, 32, 1)))
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's own warning about the very thing
        run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    error, _ = evaluate(model, loss_fn, data.val_loader())
    return Trained(run.losses, error)


CASE = Case(
    name="loss-shape-broadcast",
    diagnosis="loss-shape-broadcast",
    description="regression MLP: outputs (64, 1), targets (64,), MSELoss compares 64 x 64 pairs",
    sick=partial(train, squeezed=True),
    cured=partial(train, squeezed=False),
    remedies={"prediction": {"squeezed": False}},
    source="https://github.com/pytorch/pytorch/issues/16045",
)
