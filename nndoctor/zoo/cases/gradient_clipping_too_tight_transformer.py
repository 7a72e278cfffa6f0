"""A transformer under SGD whose gradients are clipped to a hundredth of their norm."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import RowTransformer
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, max_norm: float) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, RowTransformer)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, 200, doctor=doctor, clip=max_norm)


CASE = Case(
    name="gradient-clipping-too-tight-transformer",
    diagnosis="gradient-clipping-too-tight",
    description="transformer encoder, SGD with momentum: gradients clipped to 0.003 instead of 2",
    sick=partial(train, max_norm=0.003),
    cured=partial(train, max_norm=2.0),
    remedies={"clip_grad_norm": "max_norm"},
    source="https://github.com/facebookresearch/detr/issues/198",
)
