"""The model ends in a softmax and the loss applies another: its gradient can hardly push a logit."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES, PIXELS
from nndoctor.zoo.trainer import Trained, fit


class Classifier(nn.Module):
    """One hidden layer; with `softmax` it returns probabilities instead of logits."""

    def __init__(self, softmax: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(PIXELS, 128)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(128, CLASSES)
        self.out = nn.Softmax(dim=1) if softmax else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.relu(self.fc1(images.flatten(1)))  # (batch, 128)
        outputs: Tensor = self.out(self.fc2(hidden))  # (batch, classes)
        return outputs


def train(seed: int, attach: Attach, *, softmax: bool, steps: int = 400) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, partial(Classifier, softmax))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="double-softmax",
    diagnosis="double-softmax",
    description="MLP: nn.Softmax at the end, nn.CrossEntropyLoss behind it",
    sick=partial(train, softmax=True),
    cured=partial(train, softmax=False),
    remedies={"final_activation": {"softmax": False}},
    source="https://github.com/Lightning-Universe/lightning-bolts/issues/654",
)
