"""The epoch's average is a sum of losses with their history: every step of the epoch stays in memory."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained


def train(seed: int, attach: Attach, *, keep: str) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, Mlp)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    attach(model, optimizer, loss_fn, loader=loader)
    losses = []
    for _epoch in range(2):
        running_loss: Tensor | float = 0.0
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            loss.backward()
            optimizer.step()
            running_loss = running_loss + (loss.item() if keep == "item" else loss)
            losses.append(loss.item())
    return Trained(tuple(losses), None)  # the same losses; what is lost is memory


CASE = Case(
    name="graph-retained-running-loss",
    diagnosis="graph-retained",
    description="MLP, SGD: running_loss adds up losses with their history",
    sick=partial(train, keep="tensor"),
    cured=partial(train, keep="item"),
    remedies={"loss.item()": {"keep": "item"}},
    source="https://github.com/pytorch/pytorch/issues/17568",
)
