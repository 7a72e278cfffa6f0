"""An MLP under SGD at a rate ten thousand times too small: nothing is learnt in the time there is."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, rate: float, steps: int = 400) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, Mlp)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="learning-rate-too-low",
    diagnosis="learning-rate-too-low",
    description="MLP, SGD: lr=1e-5 instead of 0.1",
    sick=partial(train, rate=1e-5),
    cured=partial(train, rate=0.1),
    remedies={"lr": "rate"},
    source="https://github.com/kmkolasinski/deep-learning-notes/issues/3",
)
