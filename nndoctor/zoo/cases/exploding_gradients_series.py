"""A plain recurrent net over a long window of a time series: its recurrent weights multiply the gradient each hour."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches
from nndoctor.zoo.synthetic import electricity
from nndoctor.zoo.trainer import Trained, fit

WINDOW = 96


class Forecaster(nn.Module):
    """The next hour of every meter from a window of hours."""

    def __init__(self, meters: int, hidden: int = 32, gain: float = 1.02) -> None:
        super().__init__()
        self.rnn = nn.RNN(meters, hidden, nonlinearity="relu", batch_first=True)
        self.head = nn.Linear(hidden, meters)
        with torch.no_grad():
            dict(self.rnn.named_parameters())["weight_hh_l0"].copy_(gain * torch.eye(hidden))

    def forward(self, hours: Tensor) -> Tensor:
        states, _ = self.rnn(hours)  # (batch, window, hidden)
        ahead: Tensor = self.head(states[:, -1])  # (batch, meters)
        return ahead


def train(seed: int, attach: Attach, *, clip: float | None, steps: int = 300) -> Trained:
    load = electricity(seed=seed)  # (hours, meters)
    windows = load.unfold(0, WINDOW + 1, 1).transpose(1, 2)  # (count, window + 1, meters)
    loader = batches(windows[:, :-1].contiguous(), windows[:, -1].contiguous(), 32, seed=seed)
    model = seeded(seed, lambda: Forecaster(load.shape[1]))
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, clip=clip, doctor=doctor)


CASE = Case(
    name="exploding-gradients-series",
    diagnosis="exploding-gradients",
    description="ReLU recurrent forecaster over 96 hours, without gradient clipping",
    sick=partial(train, clip=None),
    cured=partial(train, clip=1.0),
    place=("rnn",),
    remedies={"clip_grad_norm": "clip", "max_norm": "clip"},
    source="https://github.com/pytorch/pytorch/issues/2623",
)
