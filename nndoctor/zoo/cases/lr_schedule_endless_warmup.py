"""A warm-up copied from a run of a hundred thousand steps: this one ends before the rate has got anywhere."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import RowTransformer
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, warmup: float, steps: int = 320) -> Trained:
    data = classification()
    loader = data.train_loader(32, seed=seed)
    model = seeded(seed, RowTransformer)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    ramp = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warmup))
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, scheduler=ramp, clip=1.0, doctor=doctor)


CASE = Case(
    name="lr-schedule-endless-warmup",
    diagnosis="lr-schedule-misconfigured",
    description="transformer encoder, SGD: a warm-up of 1 000 000 steps instead of 100",
    sick=partial(train, warmup=1e6),
    cured=partial(train, warmup=100.0),
    remedies={"warmup_steps": "warmup"},
    source="https://github.com/Morizeyao/GPT2-Chinese/issues/60",
)
