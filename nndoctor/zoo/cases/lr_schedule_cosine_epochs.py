"""A cosine schedule whose length is counted in epochs, stepped after every batch: the rate swings up and down."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import BatchNormCnn
from nndoctor.zoo.trainer import Trained

EPOCHS = 4


def train(seed: int, attach: Attach, *, per_batch: bool) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, BatchNormCnn)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS)
    attach(model, optimizer, loss_fn, loader=loader)
    losses = []
    for _epoch in range(EPOCHS):
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if per_batch:
                scheduler.step()
        if not per_batch:
            scheduler.step()
    return Trained(tuple(losses), None)  # a rate that swings every eight steps trains, only not as planned


CASE = Case(
    name="lr-schedule-cosine-epochs",
    diagnosis="lr-schedule-misconfigured",
    description="BatchNorm CNN, CosineAnnealingLR(T_max=4 epochs) stepped after every batch",
    sick=partial(train, per_batch=True),
    cured=partial(train, per_batch=False),
    remedies={"scheduler.step()": {"per_batch": False}},
    source="https://github.com/automl/Auto-PyTorch/issues/211",
)
