"""Predictions are collected over the epoch to report an accuracy, each with the graph that made it."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import BatchNormCnn
from nndoctor.zoo.trainer import Trained


def train(seed: int, attach: Attach, *, keep: str) -> Trained:
    data = classification().first(2560)
    loader = data.train_loader(seed=seed)
    model = seeded(seed, BatchNormCnn)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    losses = []
    for _epoch in range(2):
        predicted, expected = [], []
        for inputs, targets in loader:
            optimizer.zero_grad()
            logits = model(inputs)
            loss = loss_fn(logits, targets)
            loss.backward()
            optimizer.step()
            predicted.append(logits.detach() if keep == "detach" else logits)
            expected.append(targets)
            losses.append(loss.item())
        right = torch.cat(predicted).argmax(1) == torch.cat(expected)
        doctor.observe(train_accuracy=right.float().mean().item())
    return Trained(tuple(losses), None)  # the same losses; what is lost is memory


CASE = Case(
    name="graph-retained-predictions",
    diagnosis="graph-retained",
    description="CNN, AdamW: logits are collected with their history for the epoch's accuracy",
    sick=partial(train, keep="tensor"),
    cured=partial(train, keep="detach"),
    remedies={"outputs.detach()": {"keep": "detach"}},
    source="https://github.com/Quantinuum/lambeq/pull/251",
)
