"""Weight normalisation replaces the weights of every layer after the optimizer has taken the old ones."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import ink_regression
from nndoctor.zoo.trainer import Trained, fit


class Regressor(nn.Module):
    """Predicts one number from the upper half of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden1 = nn.Linear(14 * 28, 64)
        self.hidden2 = nn.Linear(64, 32)
        self.out = nn.Linear(32, 1)

    def forward(self, rows: Tensor) -> Tensor:
        hidden = torch.tanh(self.hidden1(rows))  # (batch, 64)
        hidden = torch.tanh(self.hidden2(hidden))  # (batch, 32)
        ink: Tensor = self.out(hidden)  # (batch, 1)
        return ink


def train(seed: int, attach: Attach, *, optimizer_last: bool | str, steps: int = 250) -> Trained:
    data = ink_regression()
    loader = data.train_loader(32, seed=seed)
    model = seeded(seed, Regressor)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for layer in (model.hidden1, model.hidden2, model.out):
        weight_norm(layer)  # layer.weight is made of two new parameters from here on
    if optimizer_last:
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    loss_fn = nn.MSELoss()
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="optimizer-stale-weight-norm",
    diagnosis="optimizer-holds-stale-parameters",
    description="regression MLP, AdamW: weight_norm replaces the weights after the optimizer was made, only biases learn",
    sick=partial(train, optimizer_last=False),
    cured=partial(train, optimizer_last=True),
    place=("hidden1", "hidden2", "out"),
    remedies={"optimizer = Optimizer(model.parameters())": "optimizer_last"},
    source="https://github.com/openvinotoolkit/nncf/pull/327",
)
