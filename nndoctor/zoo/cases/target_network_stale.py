"""BYOL whose teacher is never averaged: the student learns to predict a random network and stops there."""

from __future__ import annotations

from functools import partial

import torch

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.cases.healthy_byol import Byol
from nndoctor.zoo.data import classification
from nndoctor.zoo.trainer import Trained


def train(seed: int, attach: Attach, *, follow: bool) -> Trained:
    data = classification()
    loader = data.train_loader(128, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    model = seeded(seed, Byol)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=1e-4)
    attach(model, optimizer, loader=loader)
    losses = []
    for _epoch in range(3):
        for images, _ in loader:
            first = images + 0.5 * torch.randn(images.shape, generator=draw)
            second = images + 0.5 * torch.randn(images.shape, generator=draw)
            loss = model(first, second)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if follow:
                model.follow()
            losses.append(loss.item())
    return Trained(tuple(losses), None)  # the loss is no measure of a representation


CASE = Case(
    name="target-network-stale",
    diagnosis="target-network-stale",
    description="BYOL, AdamW: the teacher is never moved towards the student",
    sick=partial(train, follow=False),
    cured=partial(train, follow=True),
    remedies={"target.load_state_dict(model.state_dict())": "follow"},
    source="https://github.com/shakedzy/tic_tac_toe/issues/1",
)
