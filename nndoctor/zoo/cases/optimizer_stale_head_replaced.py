"""In the middle of training the classifier gets new classes; the optimizer keeps the old classifier's weights."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, classification
from nndoctor.zoo.models import BatchNormCnn
from nndoctor.zoo.trainer import Trained, trained


def train(seed: int, attach: Attach, *, optimizer_last: bool | str) -> Trained:
    data = classification().first(3200)
    few = data.train_targets < 5
    loader = batches(data.train_inputs[few], data.train_targets[few], seed=seed)
    model = seeded(seed, BatchNormCnn)
    features = model.head.in_features
    model.head = nn.Linear(features, 5)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    attach(model, optimizer, loss_fn, loader=loader)
    losses: list[float] = []
    for epoch in range(6):
        if epoch == 2:  # now all ten classes
            loader = data.train_loader(seed=seed)
            model.head = nn.Linear(features, 10)
            if optimizer_last:
                optimizer.add_param_group({"params": model.head.parameters()})
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return trained(losses)


CASE = Case(
    name="optimizer-stale-head-replaced",
    diagnosis="optimizer-holds-stale-parameters",
    description="CNN, SGD: the head is replaced for new classes in the third epoch, the optimizer holds the old one",
    sick=partial(train, optimizer_last=False),
    cured=partial(train, optimizer_last=True),
    place=("head",),
    onset=49,
    remedies={"optimizer = Optimizer(model.parameters())": "optimizer_last"},
    source="https://github.com/pytorch/pytorch/issues/14467",
)
