"""A transformer encoder that gets each picture as one token: its attention has nothing to attend to."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES, PIXELS
from nndoctor.zoo.trainer import Trained, fit


class Encoder(nn.Module):
    """One encoder layer over `tokens` parts of a picture, and a classifier on their mean."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.embed = nn.Linear(PIXELS // tokens, 32)
        self.position = nn.Parameter(0.02 * torch.randn(tokens, 32))
        self.encoder = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        parts = images.reshape(len(images), self.tokens, -1)  # (batch, tokens, pixels)
        states = self.encoder(self.embed(parts) + self.position)  # (batch, tokens, 32)
        logits: Tensor = self.head(states.mean(dim=1))  # (batch, classes)
        return logits


def train(seed: int, attach: Attach, *, tokens: int, steps: int = 150) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, partial(Encoder, tokens))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    return Trained(run.losses, None)  # what is lost is the use of the layer, not the figures of a small set


CASE = Case(
    name="unhelpful-layer-attention-of-one",
    diagnosis="unhelpful-layer",
    description="transformer encoder, AdamW: pictures as sequences of length 1",
    sick=partial(train, tokens=1),
    cured=partial(train, tokens=14),
    source="https://github.com/pixelite1201/CameraHMR/issues/26",
)
