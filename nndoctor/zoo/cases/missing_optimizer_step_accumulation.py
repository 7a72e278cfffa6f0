"""An accumulation window longer than the epoch, counted anew in every epoch: its end never comes."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, load_images
from nndoctor.zoo.models import Autoencoder
from nndoctor.zoo.trainer import Trained, trained

WINDOW = 4
TOO_LONG = 256  # micro-batches; an epoch has 218


def train(seed: int, attach: Attach, *, step: bool) -> Trained:
    images = load_images().train_images.float() / 255  # (count, 1, 28, 28)
    loader = batches(images, images, 32, seed=seed)
    model = seeded(seed, Autoencoder)
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    attach(model, optimizer, loss_fn, loader=loader)
    losses = []
    window = WINDOW if step else TOO_LONG
    for _epoch in range(2):
        for index, (inputs, targets) in enumerate(loader):
            loss = loss_fn(model(inputs), targets) / window
            loss.backward()
            losses.append(window * loss.item())
            if (index + 1) % window == 0:
                optimizer.step()
                optimizer.zero_grad()
    return trained(losses)


CASE = Case(
    name="missing-optimizer-step-accumulation",
    diagnosis="missing-optimizer-step",
    description="autoencoder: a step every 256 micro-batches, counted anew in epochs of 218",
    sick=partial(train, step=False),
    cured=partial(train, step=True),
    remedies={"optimizer.step()": "step"},
    source="https://github.com/huggingface/transformers/issues/2995",
)
