"""Contrastive learning: the loss cannot fall far below the logarithm of the batch size, and flattens high."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import BatchNormCnn
from nndoctor.zoo.trainer import Trained, trained

TEMPERATURE = 0.5


class Encoder(nn.Module):
    """A CNN under a projection onto the unit sphere (Chen et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        cnn = BatchNormCnn(dropout=0.0)
        self.backbone = nn.Sequential(cnn.block1, cnn.block2, cnn.block3, nn.Flatten())
        self.project = nn.Sequential(nn.Linear(cnn.head.in_features, 64), nn.ReLU(), nn.Linear(64, 32))

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.normalize(self.project(self.backbone(images)), dim=1)  # (batch, 32)


def view(images: Tensor, draw: torch.Generator) -> Tensor:
    """The pictures shifted by up to three pixels, dimmed and with noise on them, each by chance: (batch, 1, 28, 28)."""
    down, right = torch.randint(-3, 4, (2,), generator=draw).tolist()
    strength = 0.6 + 0.8 * torch.rand(len(images), 1, 1, 1, generator=draw)
    noise = 0.3 * torch.randn(images.shape, generator=draw)
    return images.roll((down, right), dims=(2, 3)) * strength + noise


def info_nce(first: Tensor, second: Tensor) -> Tensor:
    """How badly each picture finds its other view among all others of the batch."""
    both = torch.cat([first, second])  # (2 batch, features)
    likeness = both @ both.T / TEMPERATURE  # (2 batch, 2 batch)
    likeness = likeness.masked_fill(torch.eye(len(both), dtype=torch.bool), float("-inf"))
    partner = torch.arange(len(both)).roll(len(first))  # (2 batch,)
    return nn.functional.cross_entropy(likeness, partner)


def train(seed: int, attach: Attach) -> Trained:
    data = classification()
    loader = data.train_loader(128, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    model = seeded(seed, Encoder)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-6)
    attach(model, optimizer, loader=loader)
    losses = []
    for _epoch in range(2):
        for images, _ in loader:
            loss = info_nce(model(view(images, draw)), model(view(images, draw)))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
    return trained(losses)


CASE = Case(
    name="healthy-contrastive",
    diagnosis=None,
    description="SimCLR: the InfoNCE loss flattens not far below its start, masked logits are -inf on purpose",
    healthy=train,
    source="https://arxiv.org/abs/2002.05709",
)
