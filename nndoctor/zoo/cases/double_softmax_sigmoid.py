"""A sigmoid at the end of the net and another one inside the loss."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches
from nndoctor.zoo.synthetic import customers
from nndoctor.zoo.trainer import Trained, fit


class Adult(nn.Module):
    """A table net with one output; a probability with `sigmoid`, else a logit (batch, 1)."""

    def __init__(self, columns: int, sigmoid: bool) -> None:
        super().__init__()
        self.first = nn.Linear(columns, 64)
        self.second = nn.Linear(64, 32)
        self.last = nn.Linear(32, 1)
        self.sigmoid = sigmoid

    def forward(self, columns: Tensor) -> Tensor:
        hidden = torch.relu(self.second(torch.relu(self.first(columns))))  # (batch, 32)
        out: Tensor = self.last(hidden)  # (batch, 1)
        return torch.sigmoid(out) if self.sigmoid else out


def train(seed: int, attach: Attach, *, sigmoid: bool, steps: int = 450) -> Trained:
    data = customers(seed=seed)
    loader = batches(data.train_inputs, data.train_targets.float().unsqueeze(1), 64, seed=seed)
    model = seeded(seed, lambda: Adult(data.train_inputs.shape[1], sigmoid))
    loss_fn = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="double-softmax-sigmoid",
    diagnosis="double-softmax",
    description="table net: torch.sigmoid at the end of forward(), nn.BCEWithLogitsLoss behind it",
    sick=partial(train, sigmoid=True),
    cured=partial(train, sigmoid=False),
    remedies={"final_activation": {"sigmoid": False}},
    source="https://github.com/aidotse/LeakPro/issues/229",
)
