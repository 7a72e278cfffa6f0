"""Pixels from 0 to 255, made fit inside the model: its first layer is a BatchNorm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, load_images
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, fit


class SelfScaling(nn.Module):
    """Standardises what it is given, then classifies it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.BatchNorm2d(1, affine=False)
        self.net = LeNet()

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.net(self.scale(pixels))  # (batch, classes)
        return logits


def train(seed: int, attach: Attach, *, steps: int = 250) -> Trained:
    images = load_images()
    loader = batches(images.train_images.float(), images.train_labels, seed=seed)
    model = seeded(seed, SelfScaling)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.NAdam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="healthy-raw-pixels",
    diagnosis=None,
    description="raw pixels of 0 to 255 into a net that begins with BatchNorm, NAdam",
    healthy=train,
)
