"""Hidden layers in a Python list: the forward pass uses them, the optimizer has never heard of them."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES, PIXELS
from nndoctor.zoo.trainer import Trained, fit


class DeepNet(nn.Module):
    """Four hidden layers between an embedding and a classifier."""

    def __init__(self, registered: bool | str, width: int = 48) -> None:
        super().__init__()
        self.embed = nn.Linear(PIXELS, width)
        hidden = [nn.Linear(width, width) for _ in range(4)]
        self.hidden = nn.ModuleList(hidden) if registered else hidden
        self.classifier = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        state = torch.tanh(self.embed(images.flatten(1)))  # (batch, width)
        for layer in self.hidden:
            state = torch.tanh(layer(state))  # (batch, width)
        logits: Tensor = self.classifier(state)  # (batch, classes)
        return logits


def train(seed: int, attach: Attach, *, registered: bool | str, steps: int = 300) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, partial(DeepNet, registered))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="unregistered-list",
    diagnosis="unregistered-module",
    description="tanh MLP, SGD: four hidden layers are kept in a plain list",
    sick=partial(train, registered=False),
    cured=partial(train, registered=True),
    place=tuple(f"hidden[{number}]" for number in range(4)),
    remedies={"container": "registered"},
    source="https://github.com/pytorch/pytorch/issues/715",
)
