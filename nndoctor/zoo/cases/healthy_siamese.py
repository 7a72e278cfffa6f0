"""A siamese net with a triplet loss: one net runs three times per step, and most triplets soon cost nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import PIXELS
from nndoctor.zoo.trainer import Trained, trained

BATCH = 64


class Embedding(nn.Module):
    """A point (batch, 24) for every picture."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(PIXELS, 96), nn.ReLU(), nn.Linear(96, 24))

    def forward(self, images: Tensor) -> Tensor:
        points: Tensor = self.body(images.flatten(1))
        return points


def triplets(targets: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of pictures, others of the same class and some of another one: three (BATCH,)."""
    anchor = torch.randint(len(targets), (BATCH,), generator=draw)
    others = torch.randint(len(targets), (BATCH, 60), generator=draw)  # (BATCH, 60)
    same = targets[others] == targets[anchor].unsqueeze(1)
    row = torch.arange(BATCH)
    return anchor, others[row, same.float().argmax(1)], others[row, (~same).float().argmax(1)]


def train(seed: int, attach: Attach, *, steps: int = 300) -> Trained:
    data = classification()
    draw = torch.Generator().manual_seed(seed)
    model = seeded(seed, Embedding)
    loss_fn = nn.TripletMarginLoss(margin=1.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    attach(model, optimizer, loss_fn)
    losses = []
    for _step in range(steps):
        anchor, same, other = (data.train_inputs[index] for index in triplets(data.train_targets, draw))
        loss = loss_fn(model(anchor), model(same), model(other))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return trained(losses)


CASE = Case(
    name="healthy-siamese",
    diagnosis=None,
    description="triplet loss: three forward passes per step, a loss that is exactly zero for many samples",
    healthy=train,
    source="https://arxiv.org/abs/1503.03832",
)
