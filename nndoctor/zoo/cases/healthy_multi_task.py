"""Two tasks with two losses of different kind and size, added with a weight, and two learning rates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES
from nndoctor.zoo.trainer import Trained, trained

WEIGHT = 0.5


class TwoHeads(nn.Module):
    """A small CNN that tells the class and redraws the picture at a quarter of its size."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()
        )
        self.kind = nn.Linear(16 * 49, CLASSES)
        self.drawing = nn.Conv2d(16, 1, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.trunk(images)  # (batch, 16, 7, 7)
        return self.kind(maps.flatten(1)), self.drawing(maps)  # (batch, classes), (batch, 1, 7, 7)


def train(seed: int, attach: Attach) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, TwoHeads)
    name_it, draw_it = nn.CrossEntropyLoss(), nn.MSELoss()
    heads = [*model.kind.parameters(), *model.drawing.parameters()]
    optimizer = torch.optim.AdamW([{"params": model.trunk.parameters(), "lr": 1e-3}, {"params": heads, "lr": 3e-3}])
    attach(model, optimizer, loader=loader)
    losses = []
    for _epoch in range(3):
        for images, targets in loader:
            logits, drawn = model(images)
            small = nn.functional.adaptive_avg_pool2d(images, 7)  # (batch, 1, 7, 7)
            loss = name_it(logits, targets) + WEIGHT * draw_it(drawn, small)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return trained(losses)


CASE = Case(
    name="healthy-multi-task",
    diagnosis=None,
    description="CNN with two heads, cross-entropy plus half an MSE, a rate of its own for the heads",
    healthy=train,
)
