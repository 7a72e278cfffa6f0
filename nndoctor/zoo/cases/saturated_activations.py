"""Tanh units fed through a temperature the wrong way round: they sit at +-1 and pass no gradient."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES, PIXELS
from nndoctor.zoo.trainer import Trained, fit


class TemperedMlp(nn.Module):
    """Two hidden tanh layers whose pre-activations are multiplied by `sharpness`."""

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self.sharpness = sharpness
        self.fc1 = nn.Linear(PIXELS, 64)
        self.tanh1 = nn.Tanh()
        self.fc2 = nn.Linear(64, 64)
        self.tanh2 = nn.Tanh()
        self.fc3 = nn.Linear(64, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.tanh1(self.fc1(images.flatten(1)) * self.sharpness)  # (batch, 64)
        hidden = self.tanh2(self.fc2(hidden) * self.sharpness)  # (batch, 64)
        logits: Tensor = self.fc3(hidden)  # (batch, classes)
        return logits


def train(seed: int, attach: Attach, *, sharpness: float, steps: int = 400) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, partial(TemperedMlp, sharpness))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="saturated-activations",
    diagnosis="saturated-activations",
    description="tanh MLP: pre-activations multiplied by a temperature of 100 instead of 1",
    sick=partial(train, sharpness=100.0),
    cured=partial(train, sharpness=1.0),
    place=("tanh1", "tanh2", "fc1", "fc2"),
    source="https://github.com/floodsung/DDPG/issues/6",
)
