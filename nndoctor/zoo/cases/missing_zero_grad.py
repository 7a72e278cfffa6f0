"""Nobody calls zero_grad: every step moves along the sum of all gradients there have ever been."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, trained


def train(seed: int, attach: Attach, *, zero_grad: bool) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, Mlp)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    attach(model, optimizer, loss_fn, loader=loader)
    losses = []
    for _epoch in range(4):
        for inputs, targets in loader:
            if zero_grad:
                optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return trained(losses)


CASE = Case(
    name="missing-zero-grad",
    diagnosis="missing-zero-grad",
    description="MLP, SGD: the loop never calls optimizer.zero_grad()",
    sick=partial(train, zero_grad=False),
    cured=partial(train, zero_grad=True),
    remedies={"optimizer.zero_grad()": "zero_grad"},
    source="https://stackoverflow.com/questions/60335387/pytorch-mnist-example-not-converge",
)
