"""An accumulation loop whose condition is never true: the micro-batch counter starts anew in every round."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, load_images
from nndoctor.zoo.models import Autoencoder
from nndoctor.zoo.trainer import Trained, trained

WINDOW = 4


def train(seed: int, attach: Attach, *, step: bool) -> Trained:
    images = load_images().train_images.float() / 255  # (count, 1, 28, 28)
    loader = batches(images, images, 32, seed=seed)
    model = seeded(seed, Autoencoder)
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    attach(model, optimizer, loss_fn, loader=loader)
    losses = []
    count = 0
    for _epoch in range(2):
        for inputs, targets in loader:
            loss = loss_fn(model(inputs), targets) / WINDOW
            loss.backward()
            losses.append(WINDOW * loss.item())
            count = count + 1 if step else 1  # the mistake: counted inside the loop that it should outlive
            if count % WINDOW == 0:
                optimizer.step()
                optimizer.zero_grad()
    return trained(losses)


CASE = Case(
    name="missing-optimizer-step-accumulation",
    diagnosis="missing-optimizer-step",
    description="autoencoder: the condition for the optimizer's step after four micro-batches is never true",
    sick=partial(train, step=False),
    cured=partial(train, step=True),
    remedies={"optimizer.step()": "step"},
)
