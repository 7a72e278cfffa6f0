"""A test in train mode at the end of the script, on samples sorted by class: batch statistics ruin it."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, classification
from nndoctor.zoo.models import ResidualNet
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, switch: bool, steps: int = 90) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    by_class = data.val_targets.sort(stable=True).indices
    test_loader = batches(data.val_inputs[by_class], data.val_targets[by_class], 50, shuffle=False)
    model = seeded(seed, ResidualNet)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps)
    if switch:
        model.eval()
    with torch.no_grad():
        found = [loss_fn(model(inputs), targets).item() for inputs, targets in test_loader]
    return Trained(run.losses, sum(found) / len(found))


CASE = Case(
    name="train-mode-during-eval-batchnorm",
    diagnosis="train-mode-during-eval",
    description="residual net, SGD: the final test runs in train mode over samples sorted by class",
    sick=partial(train, switch=False),
    cured=partial(train, switch=True),
    place=("blocks",),
    remedies={"model.eval()": "switch"},
    source="https://github.com/deep-learning-with-pytorch/dlwpt-code/issues/104",
    onset=90,
)
