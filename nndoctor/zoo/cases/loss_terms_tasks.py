"""Two tasks on one trunk, one summed and one averaged: under clipping the classifier gets what the other leaves."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES
from nndoctor.zoo.trainer import Trained


class TwoTasks(nn.Module):
    """From the upper half of a picture, its class and its lower half."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(14 * 28, 96), nn.ReLU())
        self.classify = nn.Linear(96, CLASSES)
        self.draw = nn.Linear(96, 14 * 28)

    def forward(self, upper: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.trunk(upper.flatten(1))  # (batch, 96)
        return self.classify(hidden), self.draw(hidden)  # (batch, classes), (batch, 392)


def train(seed: int, attach: Attach, *, term_weight: float, steps: int = 400) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, TwoTasks)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    attach(model, optimizer, loader=loader)
    losses: list[float] = []
    while len(losses) < steps:
        for images, labels in loader:
            scores, drawn = model(images[:, :, :14])
            class_loss = nn.functional.cross_entropy(scores, labels)
            picture_loss = nn.functional.mse_loss(drawn, images[:, :, 14:].flatten(1), reduction="sum")
            loss = class_loss + term_weight * picture_loss
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
            if len(losses) == steps:
                break
    with torch.no_grad():
        scores, _ = model(data.val_inputs[:, :, :14])
        wrong: Tensor = scores.argmax(1) != data.val_targets
    return Trained(tuple(losses), wrong.float().mean().item())


CASE = Case(
    name="loss-terms-two-tasks",
    diagnosis="loss-term-imbalance",
    description="two heads on one trunk, SGD with clipping: cross entropy averaged, squared error summed over 64 x 392 pixels",
    sick=partial(train, term_weight=1.0),
    cured=partial(train, term_weight=1e-4),
    place=("loss/term 1 (cross entropy)",),
    remedies={"term_weight": "term_weight"},
    source="https://github.com/yuanwei1989/landmark-detection/issues/2",
)
