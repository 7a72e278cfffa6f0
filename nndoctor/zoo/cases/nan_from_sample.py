"""One picture of the data set holds a NaN; the step that meets it ends the training."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import isnan

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, fit

BAD_SAMPLE = 3141


def train(seed: int, attach: Attach, *, damaged: bool, steps: int = 300) -> Trained:
    data = classification()
    inputs = data.train_inputs.clone()
    if damaged:
        inputs[BAD_SAMPLE, 0, 13, 13] = float("nan")
    loader = batches(inputs, data.train_targets, seed=seed)
    model = seeded(seed, LeNet)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    met = next((step for step, loss in enumerate(run.losses, 1) if isnan(loss)), None)
    return replace(run, onset=met)


CASE = Case(
    name="nan-or-inf-sample",
    diagnosis="nan-or-inf",
    description="LeNet: one pixel of one of 7 000 training pictures is NaN",
    sick=partial(train, damaged=True),
    cured=partial(train, damaged=False),
    place=("conv1",),
    source="https://github.com/prs-eth/Marigold/issues/111",
)
