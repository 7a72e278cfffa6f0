"""A transformer whose forward pass stops one block early: the last block is registered, optimised, and never called."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import RowTransformer
from nndoctor.zoo.trainer import Trained, fit


class EarlyExit(RowTransformer):
    """The encoder with its blocks up to the one that `left_out` says from the end."""

    def __init__(self, left_out: int) -> None:
        super().__init__(layers=3)
        self.left_out = left_out

    def forward(self, images: Tensor) -> Tensor:
        stream = self.embed(images.squeeze(1)) + self.position  # (batch, 28, width)
        for block in self.blocks[: len(self.blocks) - self.left_out]:
            stream = block(stream)
        logits: Tensor = self.head(self.norm(stream).mean(dim=1))  # (batch, classes)
        return logits


def train(seed: int, attach: Attach, *, left_out: int, steps: int = 120) -> Trained:
    data = classification()
    loader = data.train_loader(32, seed=seed)
    model = seeded(seed, partial(EarlyExit, left_out))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    return Trained(run.losses, None)  # two blocks do nearly as well as three


CASE = Case(
    name="unused-parameters-transformer",
    diagnosis="unused-parameters",
    description="transformer encoder: forward() runs blocks[:-1], the last of three blocks is never called",
    sick=partial(train, left_out=1),
    cured=partial(train, left_out=0),
    place=("blocks.2",),
    source="https://github.com/joanaapa/Distillation-DNABERT-Promoter/issues/1",
)
