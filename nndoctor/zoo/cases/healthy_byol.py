"""Self-distillation: the teacher is a moving average of the student, inside the model, and never gets a gradient."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import PIXELS
from nndoctor.zoo.trainer import Trained, trained

MEMORY = 0.98


class Byol(nn.Module):
    """A student with a predictor, and a teacher that follows it slowly (Grill et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.student = nn.Sequential(
            nn.Linear(PIXELS, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 64), nn.BatchNorm1d(64)
        )
        self.predictor = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64))
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return (self.error(first, second) + self.error(second, first)) / 2

    def error(self, seen: Tensor, other: Tensor) -> Tensor:
        """Two minus twice the cosine between what the student predicts and what the teacher sees."""
        predicted = self.predictor(self.student(seen.flatten(1)))  # (batch, 64)
        with torch.no_grad():
            wanted = self.teacher(other.flatten(1))  # (batch, 64)
        return 2 - 2 * nn.functional.cosine_similarity(predicted, wanted).mean()

    @torch.no_grad()
    def follow(self) -> None:
        for old, new in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            old.lerp_(new, 1 - MEMORY)


def train(seed: int, attach: Attach) -> Trained:
    data = classification()
    loader = data.train_loader(128, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    model = seeded(seed, Byol)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=1e-4)
    attach(model, optimizer, loader=loader)
    losses = []
    for _epoch in range(5):
        for images, _ in loader:
            first = images + 0.5 * torch.randn(images.shape, generator=draw)
            second = images + 0.5 * torch.randn(images.shape, generator=draw)
            loss = model(first, second)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            model.follow()
            losses.append(loss.item())
    return trained(losses)


CASE = Case(
    name="healthy-byol",
    diagnosis=None,
    description="BYOL: a teacher without gradients changes outside the optimizer, the loss starts low and stays low",
    healthy=train,
    source="https://arxiv.org/abs/2006.07733",
)
