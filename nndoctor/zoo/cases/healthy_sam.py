"""Sharpness-aware minimisation: two backward passes per step, and weights that move away and back between them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import BatchNormCnn
from nndoctor.zoo.trainer import Trained, trained

RADIUS = 0.05


@torch.no_grad()
def climb(parameters: list[nn.Parameter]) -> list[Tensor]:
    """Moves the weights `RADIUS` up the gradient; what was added to each."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.stack([g.norm() for g in gradients]).norm() + 1e-12
    added = [RADIUS / norm * g for g in gradients]
    for parameter, change in zip(parameters, added, strict=True):
        parameter.add_(change)
    return added


@torch.no_grad()
def come_back(parameters: list[nn.Parameter], added: list[Tensor]) -> None:
    for parameter, change in zip(parameters, added, strict=True):
        parameter.sub_(change)


def train(seed: int, attach: Attach) -> Trained:
    data = classification()
    loader = data.train_loader(128, seed=seed)
    model = seeded(seed, BatchNormCnn)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    attach(model, optimizer, loss_fn, loader=loader)
    parameters = list(model.parameters())
    losses = []
    for _epoch in range(3):
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            loss.backward()
            added = climb(parameters)
            optimizer.zero_grad()
            loss_fn(model(inputs), targets).backward()
            come_back(parameters, added)
            optimizer.step()
            losses.append(loss.item())
    return trained(losses)


CASE = Case(
    name="healthy-sam",
    diagnosis=None,
    description="SAM: backward, climb, zero_grad, backward again on the same batch, step",
    healthy=train,
    source="https://arxiv.org/abs/2010.01412",
)
