"""A list of past batch means grows with every step: torch.compile compiles the model anew until it gives up."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.trainer import Trained


class Centred(nn.Module):
    """An MLP that takes the mean of past batches off its input."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, images: Tensor, past: list[Tensor]) -> Tensor:
        centre = past[0]
        for mean in past[1:]:
            centre = centre + mean
        logits: Tensor = self.body(images.flatten(1) - centre / len(past))
        return logits


def train(seed: int, attach: Attach, *, running_mean: bool, steps: int = 120) -> Trained:
    torch.compiler.reset()
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, Centred)
    compiled: Any = torch.compile(model, backend="eager")
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    attach(model, optimizer, loss_fn, loader=loader)
    past: list[Tensor] = []
    losses: list[float] = []
    while len(losses) < steps:
        for images, labels in loader:
            past.append(images.flatten(1).mean(0))
            if running_mean:
                past = [torch.stack(past).mean(0)]
            optimizer.zero_grad()
            loss = loss_fn(compiled(images, past), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) == steps:
                break
    return Trained(tuple(losses), None)


CASE = Case(
    name="recompiling-growing-list",
    diagnosis="recompiling",
    description="compiled MLP: the list of past batch means that it is given grows with every step",
    sick=partial(train, running_mean=False),
    cured=partial(train, running_mean=True),
    source="https://github.com/pytorch/torchdynamo/issues/330",
)
