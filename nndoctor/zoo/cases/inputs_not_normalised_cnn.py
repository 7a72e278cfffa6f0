"""Raw pixels from 0 to 255 into a CNN under SGD with momentum."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, load_images
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, fit

MEAN, DEVIATION = 73.0, 90.0


def train(seed: int, attach: Attach, *, mean: float, std: float, steps: int = 300) -> Trained:
    images = load_images()
    loader = batches((images.train_images.float() - mean) / std, images.train_labels, seed=seed)
    model = seeded(seed, LeNet)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="inputs-not-normalised-cnn",
    diagnosis="inputs-not-normalised",
    description="LeNet, SGD with momentum: pixels from 0 to 255 instead of standardised ones",
    sick=partial(train, mean=0.0, std=1.0),
    cured=partial(train, mean=MEAN, std=DEVIATION),
    remedies={"input_mean": "mean", "input_std": "std"},
    source="https://stats.stackexchange.com/questions/367057/bad-performance-with-relu-activation-function-on-mnist-data-set",
)
