"""A table of floats and one-hot columns with BatchNorm, one output and a binary loss, under RMSprop."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches
from nndoctor.zoo.synthetic import customers
from nndoctor.zoo.trainer import Trained, fit


class TableNet(nn.Module):
    """Two hidden layers with BatchNorm and dropout; one logit (batch, 1)."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(columns, 64),
            nn.BatchNorm1d(64),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(64, 32),
            nn.BatchNorm1d(32),
            nn.ReLU(),
        )
        self.head = nn.Linear(32, 1)

    def forward(self, columns: Tensor) -> Tensor:
        logit: Tensor = self.head(self.body(columns))  # (batch, 1)
        return logit


def train(seed: int, attach: Attach, *, steps: int = 450) -> Trained:
    data = customers(seed=seed)
    loader = batches(data.train_inputs, data.train_targets.float().unsqueeze(1), 64, seed=seed)
    model = seeded(seed, lambda: TableNet(data.train_inputs.shape[1]))
    loss_fn = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="healthy-table-rmsprop",
    diagnosis=None,
    description="table net with one logit: columns of zeros and ones beside floats, RMSprop with momentum",
    healthy=train,
)
