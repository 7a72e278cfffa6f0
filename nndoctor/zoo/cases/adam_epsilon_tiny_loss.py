"""A loss weighted by 1e-8 in one of many terms: Adam's own epsilon is larger than its gradients."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LstmClassifier
from nndoctor.zoo.trainer import Trained, fit


class WeightedCrossEntropy(nn.Module):
    """Cross entropy as one term of an objective in which it has a weight of 1e-8."""

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return 1e-8 * nn.functional.cross_entropy(logits, targets)


def train(seed: int, attach: Attach, *, eps: float) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, LstmClassifier)
    loss_fn = WeightedCrossEntropy()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, eps=eps, weight_decay=0.0)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, 200, doctor=doctor)


CASE = Case(
    name="adam-epsilon-dominates-tiny-loss",
    diagnosis="adam-epsilon-dominates",
    description="LSTM, AdamW: a loss weight of 1e-8 beside the default eps of 1e-8",
    sick=partial(train, eps=1e-8),
    cured=partial(train, eps=1e-15),
    remedies={"eps": "eps"},
    source="https://github.com/pytorch/torchtitan/pull/917",
)
