"""The embedding of a sequence model is computed under no_grad, as in the evaluation it was copied from."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import ink_regression
from nndoctor.zoo.trainer import Trained, fit


class RowReader(nn.Module):
    """Encodes the rows of half a picture one by one, then reads them with an LSTM to predict one number."""

    def __init__(self, gradient_path: str, width: int = 16) -> None:
        super().__init__()
        self.gradient_path = gradient_path
        self.row1 = nn.Linear(28, width)
        self.row2 = nn.Linear(width, 4)
        self.reader = nn.LSTM(4, 16, batch_first=True)
        self.out = nn.Linear(16, 1)

    def forward(self, rows: Tensor) -> Tensor:
        with nullcontext() if self.gradient_path == "connected" else torch.no_grad():
            encoded = self.row2(torch.relu(self.row1(rows.view(len(rows), 14, 28))))  # (batch, 14, 4)
        states, _ = self.reader(encoded)  # (batch, 14, 16)
        ink: Tensor = self.out(states[:, -1])  # (batch, 1)
        return ink


def train(seed: int, attach: Attach, *, gradient_path: str, steps: int = 200) -> Trained:
    data = ink_regression()
    loader = data.train_loader(32, seed=seed)
    model = seeded(seed, partial(RowReader, gradient_path))
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="detached-no-grad",
    diagnosis="detached-graph",
    description="LSTM regression, AdamW: the encoder of its rows runs under torch.no_grad()",
    sick=partial(train, gradient_path="no_grad"),
    cured=partial(train, gradient_path="connected"),
    place=("row1", "row2"),
    remedies={"gradient_path": "gradient_path"},
    source="https://github.com/NVlabs/DG-Net/issues/59",
)
