"""Ten classes, three of which have forty times fewer pictures than the others, and are never predicted."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, evaluate, fit

RARE, ONE_IN = (2, 4, 6), 40


def train(seed: int, attach: Attach, *, weight: float, steps: int = 350) -> Trained:
    data = classification()
    keep = torch.ones(len(data.train_targets), dtype=torch.bool)
    for label in RARE:
        where = (data.train_targets == label).nonzero()[:, 0]
        keep[where[len(where) // ONE_IN :]] = False
    loader = batches(data.train_inputs[keep], data.train_targets[keep], 128, seed=seed)
    weights = torch.ones(10)
    weights[list(RARE)] = weight
    model = seeded(seed, LeNet)
    loss_fn = nn.CrossEntropyLoss(weight=None if weight == 1 else weights)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    return Trained(run.losses, evaluate(model, nn.CrossEntropyLoss(), data.val_loader())[0])


CASE = Case(
    name="class-imbalance-long-tail",
    diagnosis="class-imbalance",
    description="LeNet, Adam: pullovers, coats and shirts are forty times rarer than the rest",
    sick=partial(train, weight=1.0),
    cured=partial(train, weight=40.0),
    remedies={"class_weight": "weight", "pos_weight": {}},  # the other one belongs to BCEWithLogitsLoss
    source="https://androidkt.com/how-to-use-class-weight-in-crossentropyloss-for-an-imbalanced-dataset/",
)
