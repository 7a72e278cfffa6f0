"""eps=1 in Adam, copied from a recipe for other gradients: steps are hundreds of times too short."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, eps: float) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, Mlp)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=eps)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, 220, doctor=doctor)


CASE = Case(
    name="adam-epsilon-dominates",
    diagnosis="adam-epsilon-dominates",
    description="MLP, Adam: eps=1 instead of 1e-8",
    sick=partial(train, eps=1.0),
    cured=partial(train, eps=1e-8),
    remedies={"eps": "eps"},
    source="https://github.com/ibab/tensorflow-wavenet/issues/149",
)
