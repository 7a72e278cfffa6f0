"""One customer in thirty leaves: class weights make up for it, and the loss is no plain mean any more."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.synthetic import customers
from nndoctor.zoo.trainer import Trained, fit

SHARE = 1 / 30


def train(seed: int, attach: Attach, *, steps: int = 450) -> Trained:
    data = customers(6000, share=SHARE, seed=seed)
    loader = data.train_loader(128, seed=seed)
    model = seeded(seed, partial(Mlp, (data.train_inputs.shape[1], 64, 32, 2), nn.SiLU))
    loss_fn = nn.CrossEntropyLoss(weight=torch.tensor([1.0, (1 - SHARE) / SHARE]))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="healthy-class-weights",
    diagnosis=None,
    description="table with a class of 3 %, weighted by its inverse share: gradients come in bursts",
    healthy=train,
)
