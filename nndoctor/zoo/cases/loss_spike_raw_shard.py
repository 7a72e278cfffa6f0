"""One shard of the pictures was written as 0..255, the others standardised; the step that reads it undoes the rest."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, classification, load_images
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, evaluate, fit

SHARD = slice(5120, 5184)


def train(seed: int, attach: Attach, *, raw: bool, steps: int = 110) -> Trained:
    data = classification()
    inputs = data.train_inputs.clone()
    if raw:
        inputs[SHARD] = load_images().train_images[SHARD].float()
    loader = batches(inputs, data.train_targets, seed=seed, shuffle=False)
    model = seeded(seed, LeNet)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    return Trained(run.losses, evaluate(model, loss_fn, data.val_loader())[0])


CASE = Case(
    name="loss-spike-raw-shard",
    diagnosis="loss-spike",
    description="LeNet, SGD with momentum: one batch in 109 holds raw pixels",
    sick=partial(train, raw=True),
    cured=partial(train, raw=False),
    source="https://github.com/stanford-crfm/mistral/issues/115",
)
