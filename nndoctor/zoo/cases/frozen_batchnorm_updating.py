"""A frozen backbone serves an old head and a new one; train() moves its statistics, and the old head goes wrong."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, classification
from nndoctor.zoo.models import BatchNormCnn
from nndoctor.zoo.trainer import Trained, evaluate, fit


class TwoTasks(nn.Module):
    """The blocks and head of a trained net, and a second head on the same features."""

    def __init__(self, trained_net: BatchNormCnn) -> None:
        super().__init__()
        self.backbone = nn.Sequential(trained_net.block1, trained_net.block2, trained_net.block3, nn.Flatten())
        self.old_head = trained_net.head
        self.new_head = nn.Linear(trained_net.head.in_features, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.new_head(self.backbone(images))  # (batch, classes)
        return logits

    def old_task(self, images: Tensor) -> Tensor:
        logits: Tensor = self.old_head(self.backbone(images))  # (batch, classes)
        return logits


class OldTask(nn.Module):
    """The first task of a model, to be evaluated like a model of its own."""

    def __init__(self, model: TwoTasks) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.old_task(images)


def train(seed: int, attach: Attach, *, frozen_mode: str) -> Trained:
    data = classification()
    first: BatchNormCnn = seeded(seed, BatchNormCnn)
    loss_fn = nn.CrossEntropyLoss()
    fit(first, torch.optim.Adam(first.parameters(), lr=2e-3), loss_fn, data.train_loader(seed=seed), 120)
    model = TwoTasks(first)
    model.backbone.requires_grad_(False)
    model.old_head.requires_grad_(False)
    negatives = batches(2 * (0.9 - data.train_inputs[:3200]), data.train_targets[:3200], seed=seed)
    optimizer = torch.optim.Adam(model.new_head.parameters(), lr=1e-3)
    attach(model, optimizer, loss_fn, loader=negatives)
    losses = []
    for _epoch in range(3):
        model.train()
        if frozen_mode == "eval":
            model.backbone.eval()
        for inputs, targets in negatives:
            optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    old_loss, _ = evaluate(OldTask(model), loss_fn, data.val_loader())
    return Trained(tuple(losses), old_loss)


CASE = Case(
    name="frozen-batchnorm-updating",
    diagnosis="frozen-batchnorm-updating",
    description="CNN: a frozen backbone stays in train mode while a second head learns on bright negatives",
    sick=partial(train, frozen_mode="train"),
    cured=partial(train, frozen_mode="eval"),
    place=("backbone",),
    remedies={"frozen_part.eval()": {"frozen_mode": "eval"}},
    source="https://github.com/lightly-ai/lightly/issues/1438",
)
