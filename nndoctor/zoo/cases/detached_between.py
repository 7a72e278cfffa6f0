"""A detach() in forward(), left from looking at the features: the convolutions never learn."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES
from nndoctor.zoo.trainer import Trained, fit


class TwoStages(nn.Module):
    """A convolutional encoder and a classifier, with a place in between to look at the features."""

    def __init__(self, gradient_path: str) -> None:
        super().__init__()
        self.gradient_path = gradient_path
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=3), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=3), nn.ReLU(), nn.Flatten()
        )
        self.head = nn.Linear(8 * 2 * 2, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        features = self.encoder(images)  # (batch, 32)
        if self.gradient_path != "connected":
            features = features.detach()
        logits: Tensor = self.head(features)  # (batch, classes)
        return logits


def train(seed: int, attach: Attach, *, gradient_path: str, steps: int = 200) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, partial(TwoStages, gradient_path))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="detached-between",
    diagnosis="detached-graph",
    description="CNN, Adam: forward() detaches the features before the classifier",
    sick=partial(train, gradient_path="detached"),
    cured=partial(train, gradient_path="connected"),
    place=("encoder",),
    remedies={"gradient_path": "gradient_path"},
    source="https://github.com/dragen1860/IntroVAE-Pytorch/issues/3",
)
