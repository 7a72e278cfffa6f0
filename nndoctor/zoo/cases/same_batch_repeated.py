"""``next(iter(loader))`` inside the loop, on a loader that does not shuffle: always the first batch."""

from __future__ import annotations

from functools import partial
from itertools import cycle

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, evaluate


def train(seed: int, attach: Attach, *, repeated: bool) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed, shuffle=False)
    model = seeded(seed, Mlp)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    attach(model, optimizer, loss_fn, loader=loader)
    losses = []
    batches = cycle(loader)
    for _step in range(300):
        inputs, targets = next(iter(loader)) if repeated else next(batches)
        optimizer.zero_grad()
        loss = loss_fn(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    val_loss, _ = evaluate(model, loss_fn, data.val_loader())
    return Trained(tuple(losses), val_loss)


CASE = Case(
    name="same-batch-repeated",
    diagnosis="same-batch-repeated",
    description="MLP: next(iter(loader)) in every step",
    sick=partial(train, repeated=True),
    cured=partial(train, repeated=False),
    remedies={"batches": {"repeated": False}},
    source="https://github.com/wandb/examples/issues/444",
)
