"""A binary classifier with one output and a cross entropy: the softmax of one number is 1, the loss always zero."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, classification
from nndoctor.zoo.models import PIXELS
from nndoctor.zoo.trainer import LossFunction, Trained, fit

FOOTWEAR = (5, 7, 9)


class IsFootwear(nn.Module):
    """A small fully connected net with one logit."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(PIXELS, 48), nn.ReLU(), nn.Dropout(0.1), nn.Linear(48, 1))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.body(images.flatten(1))  # (batch, 1)
        return logits


def loss_named(name: str) -> LossFunction:
    losses: dict[str, LossFunction] = {
        "CrossEntropyLoss": nn.CrossEntropyLoss(),
        "BCEWithLogitsLoss": nn.BCEWithLogitsLoss(),
    }
    return losses[name]


def train(seed: int, attach: Attach, *, loss: str, steps: int = 250) -> Trained:
    data = classification()

    def answers(labels: Tensor) -> Tensor:
        return torch.isin(labels, torch.tensor(FOOTWEAR)).float().unsqueeze(1)  # (count, 1)

    loader = batches(data.train_inputs, answers(data.train_targets), seed=seed)
    model = seeded(seed, IsFootwear)
    loss_fn = loss_named(loss)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    model.eval()
    with torch.no_grad():
        wrong = ((model(data.val_inputs) > 0).float() != answers(data.val_targets)).float().mean().item()
    return Trained(run.losses, wrong)


CASE = Case(
    name="wrong-loss-cross-entropy-of-one",
    diagnosis="wrong-loss-for-task",
    description="MLP with one output, AdamW: CrossEntropyLoss instead of BCEWithLogitsLoss",
    sick=partial(train, loss="CrossEntropyLoss"),
    cured=partial(train, loss="BCEWithLogitsLoss"),
    remedies={"loss": "loss"},
    source="https://datascience.stackexchange.com/questions/37128/how-to-use-cross-entropy-loss-in-pytorch-for-binary-prediction",
)
