"""A hidden layer of one unit between wide ones: ten classes have to pass through one number."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES, PIXELS, Mlp
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, width: float, steps: int = 400) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, partial(Mlp, (PIXELS, 128, int(width), 128, CLASSES), partial(nn.LeakyReLU, 0.1)))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="underfitting-bottleneck-mlp",
    diagnosis="underfitting-capacity",
    description="MLP, Adam: one unit between two layers of 128",
    sick=partial(train, width=1),
    cured=partial(train, width=50),
    place=("fc2",),
    remedies={"width": "width"},
    source="https://github.com/mattragoza/LiGAN/issues/18",
)


class EmbeddingCnn(nn.Module):
    """Convolutions, an embedding of `width` numbers, and a classifier on it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, stride=2)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2)
        self.embedding = nn.Linear(16 * 6 * 6, width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.relu(self.conv2(torch.relu(self.conv1(images))))  # (batch, 16, 6, 6)
        embedding = torch.tanh(self.embedding(maps.flatten(1)))  # (batch, width)
        logits: Tensor = self.head(embedding)  # (batch, classes)
        return logits


def train_embedding(seed: int, attach: Attach, *, width: float, steps: int = 400) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, partial(EmbeddingCnn, int(width)))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


EMBEDDING = Case(
    name="underfitting-bottleneck-cnn",
    diagnosis="underfitting-capacity",
    description="CNN, SGD: an embedding of one tanh unit before the classifier",
    sick=partial(train_embedding, width=1),
    cured=partial(train_embedding, width=50),
    place=("embedding",),
    remedies={"width": "width"},
    source="https://github.com/Frank-ZY-Dou/EMDM/issues/7",
)
