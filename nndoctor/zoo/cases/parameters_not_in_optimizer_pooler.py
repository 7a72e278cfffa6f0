"""Parameter groups made when the pooler was still a part of the classifier: nobody trains it any more."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES
from nndoctor.zoo.trainer import Trained, fit


class WithPooler(nn.Module):
    """A CNN, a pooler between it and the classifier, as in the report."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv2d(8, 16, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Flatten(),
        )
        self.pooler = nn.Sequential(nn.Linear(16 * 49, 32), nn.Tanh())
        self.classifier = nn.Linear(32, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.pooler(self.encoder(images)))  # (batch, classes)
        return logits


def train(seed: int, attach: Attach, *, all_given: bool, steps: int = 300) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, WithPooler)
    groups = [
        {"params": model.encoder.parameters(), "lr": 1e-4},
        {"params": model.classifier.parameters(), "lr": 1e-4},
    ]
    if all_given:
        groups.append({"params": model.pooler.parameters(), "lr": 3e-3})
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(groups)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="parameters-not-in-optimizer-pooler",
    diagnosis="parameters-not-in-optimizer",
    description="CNN fine-tuned by groups: encoder and classifier are listed, the pooler between them is not",
    sick=partial(train, all_given=False),
    cured=partial(train, all_given=True),
    place=("pooler",),
    remedies={"optimizer_parameters": {"all_given": True}},
    source="https://github.com/facebookresearch/mmf/pull/620",
)
