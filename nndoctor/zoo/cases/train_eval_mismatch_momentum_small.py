"""A regression on features far from zero whose BatchNorm has a momentum for training a hundred times as long."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import Split, ink_regression
from nndoctor.zoo.trainer import Trained, fit


class Normalised(nn.Module):
    """Normalises its inputs and its hidden layer, then predicts one number."""

    def __init__(self, momentum: float) -> None:
        super().__init__()
        self.norm_in = nn.BatchNorm1d(14 * 28, momentum=momentum)
        self.hidden = nn.Linear(14 * 28, 64)
        self.norm_hidden = nn.BatchNorm1d(64, momentum=momentum)
        self.out = nn.Linear(64, 1)

    def forward(self, rows: Tensor) -> Tensor:
        hidden = torch.relu(self.norm_hidden(self.hidden(self.norm_in(rows))))  # (batch, 64)
        ink: Tensor = self.out(hidden)  # (batch, 1)
        return ink


def train(seed: int, attach: Attach, *, momentum: float, steps: int = 220) -> Trained:
    scaled = ink_regression()
    data = Split(3 * scaled.train_inputs + 2, scaled.train_targets, 3 * scaled.val_inputs + 2, scaled.val_targets)
    loader = data.first(3200).train_loader(seed=seed)
    model = seeded(seed, partial(Normalised, momentum))
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    found: list[float] = []

    class Listener:
        def observe(self, **values: float) -> None:
            found.append(values["val_loss"])
            doctor.observe(val_loss=values["val_loss"])

    run = fit(model, optimizer, loss_fn, loader, steps, val_loader=data.val_loader(), doctor=Listener())
    return Trained(run.losses, found[-1])


CASE = Case(
    name="train-eval-mismatch-momentum-small",
    diagnosis="train-eval-mismatch",
    description="regression MLP, Adam: BatchNorm with momentum=0.0005 in a run of 220 steps",
    sick=partial(train, momentum=0.0005),
    cured=partial(train, momentum=0.1),
    place=("norm_in", "norm_hidden"),
    remedies={"batchnorm_momentum": "momentum"},
    source="https://github.com/pytorch/pytorch/issues/4741",
)
