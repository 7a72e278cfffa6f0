"""Gradient surgery: the gradients of two tasks come from torch.autograd.grad and are put into .grad by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES, PIXELS
from nndoctor.zoo.trainer import Trained, trained


class TwoTasks(nn.Module):
    """One trunk under two heads: the class, and how bright the picture is."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(PIXELS, 96), nn.GELU(), nn.Linear(96, 48), nn.GELU())
        self.kind = nn.Linear(48, CLASSES)
        self.brightness = nn.Linear(48, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        shared = self.trunk(images.flatten(1))  # (batch, 48)
        return self.kind(shared), self.brightness(shared)  # (batch, classes), (batch, 1)


def without_conflict(first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
    """The sum of both gradients, each without the part that opposes the other (Yu et al. 2020)."""
    agreement = sum((a * b).sum() for a, b in zip(first, second, strict=True))
    if agreement >= 0:
        return [a + b for a, b in zip(first, second, strict=True)]
    first_size, second_size = sum((a * a).sum() for a in first), sum((b * b).sum() for b in second)
    return [
        a - agreement / second_size * b + b - agreement / first_size * a for a, b in zip(first, second, strict=True)
    ]


def train(seed: int, attach: Attach) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, TwoTasks)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    attach(model, optimizer, loader=loader)
    parameters = list(model.parameters())
    losses = []
    for _epoch in range(3):
        for images, targets in loader:
            logits, brightness = model(images)
            wanted = images.mean(dim=(1, 2, 3)).unsqueeze(1)  # (batch, 1)
            tasks = (nn.functional.cross_entropy(logits, targets), nn.functional.mse_loss(brightness, wanted))
            gradients = [
                [
                    torch.zeros_like(p) if g is None else g
                    for p, g in zip(
                        parameters, torch.autograd.grad(task, parameters, retain_graph=True, allow_unused=True), strict=True
                    )
                ]
                for task in tasks
            ]
            for parameter, gradient in zip(parameters, without_conflict(*gradients), strict=True):
                parameter.grad = gradient
            optimizer.step()
            losses.append(sum(tasks).item())  # type: ignore[union-attr]
    return trained(losses)


CASE = Case(
    name="healthy-gradient-surgery",
    diagnosis=None,
    description="PCGrad on two tasks: no backward(), no zero_grad(), gradients are assigned",
    healthy=train,
    source="https://arxiv.org/abs/2001.06782",
)
