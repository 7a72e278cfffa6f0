"""Monte-Carlo dropout: the net is evaluated in train mode on purpose, many times on the same batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.synthetic import house_prices
from nndoctor.zoo.trainer import Trained, trained

DRAWS = 8


class UncertainNet(nn.Module):
    """A regression net with dropout before every weight layer but the first (Gal & Ghahramani 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(8, 96), nn.ReLU(), nn.Dropout(0.1), nn.Linear(96, 96), nn.ReLU(), nn.Dropout(0.1), nn.Linear(96, 1)
        )

    def forward(self, columns: Tensor) -> Tensor:
        value: Tensor = self.body(columns)  # (batch, 1)
        return value


def train(seed: int, attach: Attach) -> Trained:
    data = house_prices(seed=seed)
    loader = data.train_loader(64, seed=seed)
    model = seeded(seed, UncertainNet)
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    losses = []
    for _epoch in range(8):
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        with torch.no_grad():
            answers = torch.stack([model(data.val_inputs) for _draw in range(DRAWS)])  # (draws, count, 1)
        doctor.observe(val_loss=loss_fn(answers.mean(0), data.val_targets).item(), spread=answers.std(0).mean().item())
    return trained(losses)


CASE = Case(
    name="healthy-mc-dropout",
    diagnosis=None,
    description="regression with dropout, validated in train mode under no_grad, eight times on the same rows",
    healthy=train,
    source="https://arxiv.org/abs/1506.02142",
)
