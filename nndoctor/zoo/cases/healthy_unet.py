"""A U-Net that marks the garment in a noisy picture: skips, transposed convolutions, a loss per pixel plus Dice."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, load_images
from nndoctor.zoo.trainer import Trained, fit


def double(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.GroupNorm(2, channels_out),
        nn.ReLU(),
        nn.Conv2d(channels_out, channels_out, 3, padding=1),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """Down twice, up twice, with a skip at each level (Ronneberger et al. 2015): logits (batch, 1, 28, 28)."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = double(1, width), double(width, 2 * width), double(2 * width, 4 * width)
        self.pool = nn.MaxPool2d(2)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.mix2 = double(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.mix1 = double(2 * width, width)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        first = self.down1(images)  # (batch, width, 28, 28)
        second = self.down2(self.pool(first))  # (batch, 2 width, 14, 14)
        maps = self.bottom(self.pool(second))  # (batch, 4 width, 7, 7)
        maps = self.mix2(torch.cat([self.up2(maps), second], dim=1))  # (batch, 2 width, 14, 14)
        maps = self.mix1(torch.cat([self.up1(maps), first], dim=1))  # (batch, width, 28, 28)
        logits: Tensor = self.head(maps)
        return logits


def mask_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy per pixel plus one minus the Dice overlap."""
    chance = logits.sigmoid()
    overlap = (2 * (chance * masks).sum() + 1) / (chance.sum() + masks.sum() + 1)
    return nn.functional.binary_cross_entropy_with_logits(logits, masks) + 1 - overlap


def train(seed: int, attach: Attach, *, steps: int = 130) -> Trained:
    pictures = load_images().train_images.float() / 255  # (count, 1, 28, 28)
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(seed))
    loader = batches((pictures - 0.3) / 0.35 + 0.3 * noise, (pictures > 0.1).float(), 32, seed=seed)
    model = seeded(seed, UNet)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    doctor = attach(model, optimizer, mask_loss, loader=loader)
    return fit(model, optimizer, mask_loss, loader, steps, doctor=doctor)


CASE = Case(
    name="healthy-unet",
    diagnosis=None,
    description="U-Net segmentation, cross-entropy plus Dice, floating-point masks of zeros and ones",
    healthy=train,
    source="https://arxiv.org/abs/1505.04597",
)
