"""A regression net whose layers follow each other without an activation: three layers, one linear map."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import ink_regression
from nndoctor.zoo.trainer import Trained, evaluate, fit

ACTIVATIONS = {"none": nn.Identity, "relu": nn.ReLU}


class Head(nn.Module):
    """Two wide hidden layers and an output, with an activation of choice, as configuration files have it."""

    def __init__(self, inputs: int, activation: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, 96)
        self.fc2 = nn.Linear(96, 96)
        self.fc3 = nn.Linear(96, 1)
        self.act = ACTIVATIONS[activation]()
        self.drop = nn.Dropout(0.05)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.drop(self.act(self.fc1(inputs)))  # (batch, 96)
        hidden = self.act(self.fc2(hidden))  # (batch, 96)
        out: Tensor = self.fc3(hidden)  # (batch, 1)
        return out


def train(seed: int, attach: Attach, *, activation: str, steps: int = 500) -> Trained:
    data = ink_regression()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, partial(Head, data.train_inputs.shape[1], activation))
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    error, _ = evaluate(model, loss_fn, data.val_loader())
    return Trained(run.losses, error)


CASE = Case(
    name="missing-nonlinearity-regression",
    diagnosis="missing-nonlinearity",
    description="regression MLP, AdamW: three linear layers with nothing but a dropout between them",
    sick=partial(train, activation="none"),
    cured=partial(train, activation="relu"),
    place=("fc1", "fc2"),
    remedies={"activation": "activation"},
    source="https://github.com/nutonomy/nuscenes-devkit/issues/728",
)
