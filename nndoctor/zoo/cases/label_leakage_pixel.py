"""Every training picture carries a mark in a corner whose brightness is its class; test pictures carry none."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, classification
from nndoctor.zoo.models import BatchNormCnn
from nndoctor.zoo.trainer import Trained, evaluate, fit


def train(seed: int, attach: Attach, *, marked: bool, steps: int = 200) -> Trained:
    data = classification().first(4000)
    inputs = data.train_inputs.clone()
    if marked:
        inputs[:, 0, :3, :3] = (data.train_targets.float() - 4.5)[:, None, None]
    loader = batches(inputs, data.train_targets, seed=seed)
    model = seeded(seed, BatchNormCnn)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    return Trained(run.losses, evaluate(model, loss_fn, data.val_loader())[0])


CASE = Case(
    name="label-leakage-pixel",
    diagnosis="label-leakage",
    description="CNN with BatchNorm, SGD: a mark in the corner of each training picture tells its class",
    sick=partial(train, marked=True),
    cured=partial(train, marked=False),
    source="https://stats.stackexchange.com/questions/574181/does-watermark-text-on-images-at-the-same-position-influence-the-classification",
)
