"""Transfer learning: a backbone trained beforehand is frozen and in eval mode, a new head learns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, classification
from nndoctor.zoo.models import BatchNormCnn
from nndoctor.zoo.trainer import Trained, fit, trained


class Transfer(nn.Module):
    """The convolution blocks of `trained_net` under a new head for five classes."""

    def __init__(self, trained_net: BatchNormCnn) -> None:
        super().__init__()
        self.backbone = nn.Sequential(trained_net.block1, trained_net.block2, trained_net.block3, nn.Flatten())
        self.head = nn.Linear(trained_net.head.in_features, 5)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(images))  # (batch, 5)
        return logits


def pretrained(seed: int) -> BatchNormCnn:
    """A CNN that knows the first five classes."""
    data = classification()
    known = data.train_targets < 5
    model: BatchNormCnn = seeded(seed, BatchNormCnn)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    fit(model, optimizer, loss_fn, batches(data.train_inputs[known], data.train_targets[known], seed=seed), 150)
    return model


def train(seed: int, attach: Attach) -> Trained:
    data = classification()
    new = data.train_targets >= 5
    loader = batches(data.train_inputs[new], data.train_targets[new] - 5, seed=seed)
    model = Transfer(pretrained(seed))
    model.backbone.requires_grad_(False)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.head.parameters(), lr=1e-3)
    attach(model, optimizer, loss_fn, loader=loader)
    losses = []
    for _epoch in range(6):
        model.train()
        model.backbone.eval()
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return trained(losses)


CASE = Case(
    name="healthy-frozen-backbone",
    diagnosis=None,
    description="CNN trained on five classes, frozen in eval mode; a new head learns the other five",
    healthy=train,
)
