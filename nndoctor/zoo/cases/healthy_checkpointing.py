"""Gradient checkpointing: the blocks run forward a second time, inside backward."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import RowTransformer
from nndoctor.zoo.trainer import Trained, fit


class CheckpointedTransformer(RowTransformer):
    """The same net; the activations of its blocks are computed again in backward instead of kept."""

    def forward(self, images: Tensor) -> Tensor:
        stream = self.embed(images.squeeze(1)) + self.position  # (batch, 28, width)
        for block in self.blocks:
            stream = checkpoint(block, stream, use_reentrant=False)
        logits: Tensor = self.head(self.norm(stream).mean(dim=1))  # (batch, classes)
        return logits


def train(seed: int, attach: Attach, *, steps: int = 200) -> Trained:
    data = classification()
    loader = data.train_loader(32, seed=seed)
    model = seeded(seed, CheckpointedTransformer)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, clip=1.0, doctor=doctor)


CASE = Case(
    name="healthy-checkpointing",
    diagnosis=None,
    description="transformer with checkpointed blocks: each runs forward twice per step",
    healthy=train,
    source="https://docs.pytorch.org/docs/stable/checkpoint.html",
)
