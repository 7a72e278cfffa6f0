"""A folder of pictures read class by class, by a loader that does not shuffle."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, evaluate, fit


def train(seed: int, attach: Attach, *, shuffle: bool | str, steps: int = 300) -> Trained:
    data = classification()
    by_class = data.train_targets.sort(stable=True).indices
    loader = batches(data.train_inputs[by_class], data.train_targets[by_class], seed=seed, shuffle=shuffle in (True, "True"))
    model = seeded(seed, LeNet)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    return Trained(run.losses, evaluate(model, loss_fn, data.val_loader())[0])


CASE = Case(
    name="data-not-shuffled-sorted",
    diagnosis="data-not-shuffled",
    description="LeNet, Adam: shuffle=False over pictures sorted by class",
    sick=partial(train, shuffle=False),
    cured=partial(train, shuffle=True),
    remedies={"shuffle": "shuffle"},
    source="https://github.com/pytorch/vision/issues/7818",
)
