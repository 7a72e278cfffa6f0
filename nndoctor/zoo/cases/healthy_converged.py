"""A run that has arrived: an easy task, a loss of nearly nothing, gradients a million times smaller than at first."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, classification
from nndoctor.zoo.models import PIXELS, Mlp
from nndoctor.zoo.trainer import Trained, fit

TROUSERS, BAG = 1, 8


def train(seed: int, attach: Attach, *, steps: int = 700) -> Trained:
    data = classification()
    easy = (data.train_targets == TROUSERS) | (data.train_targets == BAG)
    loader = batches(data.train_inputs[easy], (data.train_targets[easy] == BAG).long(), seed=seed)
    model = seeded(seed, partial(Mlp, (PIXELS, 32, 2)))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="healthy-converged",
    diagnosis=None,
    description="trousers from bags: solved early, gradients and updates all but vanish afterwards",
    healthy=train,
)
