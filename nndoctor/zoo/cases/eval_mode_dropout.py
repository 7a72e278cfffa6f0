"""An evaluation every fifty steps that leaves the net in eval mode: dropout works for the first fifty steps only."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.cases.healthy_mc_dropout import UncertainNet
from nndoctor.zoo.synthetic import house_prices
from nndoctor.zoo.trainer import Trained

STEPS_PER_EVALUATION = 50


def train(seed: int, attach: Attach, *, back_to_train: bool, steps: int = 250) -> Trained:
    data = house_prices(seed=seed)
    loader = data.train_loader(64, seed=seed)
    model = seeded(seed, UncertainNet)
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    losses: list[float] = []
    model.train()
    while len(losses) < steps:
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) % STEPS_PER_EVALUATION == 0:
                model.eval()
                with torch.no_grad():
                    doctor.observe(val_loss=loss_fn(model(data.val_inputs), data.val_targets).item())
                if back_to_train:
                    model.train()
            if len(losses) == steps:
                break
    return Trained(tuple(losses), None)  # without dropout the training loss is even lower


CASE = Case(
    name="eval-mode-dropout",
    diagnosis="eval-mode-during-training",
    description="regression with dropout: model.eval() for an evaluation every 50 steps, model.train() only before the loop",
    sick=partial(train, back_to_train=False),
    cured=partial(train, back_to_train=True),
    remedies={"model.train()": "back_to_train"},
    source="https://github.com/MILVLG/mcan-vqa/issues/26",
    onset=51,  # the first evaluation comes after step 50
)
