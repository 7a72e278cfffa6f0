"""Segmentation masks as the image file holds them, 0 and 255: the binary cross entropy falls without end."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, load_images
from nndoctor.zoo.trainer import Trained, fit


class SmallUNet(nn.Module):
    """Two scales of convolutions with one skip connection, a logit per pixel."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.enc = nn.Conv2d(1, width, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.up = nn.Upsample(scale_factor=2)
        self.dec = nn.Conv2d(2 * width, width, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        skip = self.relu1(self.enc(images))  # (batch, width, 28, 28)
        deep = self.up(self.relu2(self.middle(self.pool(skip))))  # (batch, width, 28, 28)
        logits: Tensor = self.head(self.relu3(self.dec(torch.cat([skip, deep], dim=1))))  # (batch, 1, 28, 28)
        return logits


def wrongly_segmented(model: nn.Module, images: Tensor, truth: Tensor) -> float:
    """Share of the pixels that the sign of the logit puts on the wrong side."""
    with torch.no_grad():
        wrong: Tensor = (model(images) > 0) != truth
        return wrong.float().mean().item()


def train(seed: int, attach: Attach, *, divisor: float, steps: int = 120) -> Trained:
    pictures = load_images()
    images = pictures.train_images.float() / 255 - 0.5  # (count, 1, 28, 28)
    clean = (images + 0.5 > 0.4).float() * 255  # the object, as an annotation tool saves it
    noisy = images + 0.3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    loader = batches(noisy[:3000], clean[:3000] / divisor, 32, seed=seed)
    model = seeded(seed, SmallUNet)
    loss_fn = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    return Trained(run.losses, wrongly_segmented(model, noisy[3000:3500], clean[3000:3500] > 0))


CASE = Case(
    name="wrong-loss-masks-of-255",
    diagnosis="wrong-loss-for-task",
    description="U-Net, RMSprop: masks of 0 and 255 as targets of BCEWithLogitsLoss",
    sick=partial(train, divisor=1.0),
    cured=partial(train, divisor=255.0),
    remedies={"target_divisor": "divisor"},
    source="https://github.com/milesial/Pytorch-UNet/issues/78",
)
