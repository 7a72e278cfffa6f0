"""Gradual unfreezing: the backbone joins the optimizer as a second group, at a lower rate, half-way through the run."""

from __future__ import annotations

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.cases.healthy_frozen_backbone import Transfer, pretrained
from nndoctor.zoo.data import batches, classification
from nndoctor.zoo.trainer import Trained, trained

FROZEN_EPOCHS = 3


def train(seed: int, attach: Attach) -> Trained:
    data = classification()
    new = data.train_targets >= 5
    loader = batches(data.train_inputs[new], data.train_targets[new] - 5, seed=seed)
    model = seeded(seed, lambda: Transfer(pretrained(seed)))
    model.backbone.requires_grad_(False)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.head.parameters(), lr=1e-3)
    attach(model, optimizer, loss_fn, loader=loader)
    losses = []
    for epoch in range(2 * FROZEN_EPOCHS):
        model.train()
        if epoch < FROZEN_EPOCHS:
            model.backbone.eval()
        if epoch == FROZEN_EPOCHS:
            model.backbone.requires_grad_(True)
            optimizer.add_param_group({"params": model.backbone.parameters(), "lr": 1e-4})
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return trained(losses)


CASE = Case(
    name="healthy-unfreezing",
    diagnosis=None,
    description="a frozen backbone is released at epoch three and added to the optimizer as a group of its own",
    healthy=train,
    source="https://arxiv.org/abs/1801.06146",
)
