"""A factor in front of every tanh, left over from an experiment: all units sit at their limits."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.synthetic import house_prices
from nndoctor.zoo.trainer import Trained, fit


class SharpNet(nn.Module):
    """Two tanh layers; `sharpness` multiplies what enters the second one."""

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self.sharpness = sharpness
        self.first = nn.Linear(8, 64)
        self.tanh1 = nn.Tanh()
        self.second = nn.Linear(64, 64)
        self.tanh2 = nn.Tanh()
        self.last = nn.Linear(64, 1)

    def forward(self, columns: Tensor) -> Tensor:
        hidden = self.tanh1(self.sharpness * self.first(columns))  # (batch, 64)
        hidden = self.tanh2(self.sharpness * self.second(hidden))  # (batch, 64)
        value: Tensor = self.last(hidden)  # (batch, 1)
        return value


def train(seed: int, attach: Attach, *, sharpness: float, steps: int = 400) -> Trained:
    data = house_prices(seed=seed)
    loader = data.train_loader(64, seed=seed)
    model = seeded(seed, partial(SharpNet, sharpness))
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="saturated-activations-regression",
    diagnosis="saturated-activations",
    description="regression with tanh: pre-activations multiplied by 200 instead of 1",
    sick=partial(train, sharpness=200.0),
    cured=partial(train, sharpness=1.0),
    place=("tanh1", "tanh2", "first", "second"),
    source="https://github.com/floodsung/DDPG/issues/6",
)
