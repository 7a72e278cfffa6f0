"""Pictures and labels are shuffled one after the other, each with a permutation of its own."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, evaluate, fit


def train(seed: int, attach: Attach, *, together: bool, steps: int = 300) -> Trained:
    data = classification()
    generator = torch.Generator().manual_seed(100 + seed)
    order = torch.randperm(len(data.train_inputs), generator=generator)
    label_order = order if together else torch.randperm(len(order), generator=generator)
    loader = batches(data.train_inputs[order], data.train_targets[label_order], seed=seed)
    model = seeded(seed, LeNet)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    return Trained(run.losses, evaluate(model, loss_fn, data.val_loader())[0])


CASE = Case(
    name="labels-misaligned-shuffled",
    diagnosis="labels-misaligned",
    description="LeNet, Adam: pictures and labels shuffled with two permutations",
    sick=partial(train, together=False),
    cured=partial(train, together=True),
    source="https://datarekha.com/interview/deep-learning/debugging-model-not-learning/",
)
