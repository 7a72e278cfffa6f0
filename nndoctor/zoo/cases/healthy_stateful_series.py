"""A stateful LSTM on a time series: batches come in order, never shuffled, and the state is carried and detached."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.synthetic import electricity
from nndoctor.zoo.trainer import Trained, trained

WINDOW = 24
STREAMS = 16
State = tuple[Tensor, Tensor]


class Forecaster(nn.Module):
    """The next hour of every meter, from all hours so far."""

    def __init__(self, meters: int, hidden: int = 48) -> None:
        super().__init__()
        self.lstm = nn.LSTM(meters, hidden, batch_first=True)
        self.head = nn.Linear(hidden, meters)

    def forward(self, hours: Tensor, state: State | None) -> tuple[Tensor, State]:
        hidden, state = self.lstm(hours, state)  # (streams, window, hidden)
        return self.head(hidden), state


def train(seed: int, attach: Attach) -> Trained:
    load = electricity(STREAMS * 50 * WINDOW + 1, seed=seed)  # (hours, meters)
    before = load[:-1].view(STREAMS, -1, load.shape[1])  # (streams, hours, meters)
    after = load[1:].view(STREAMS, -1, load.shape[1])
    model = seeded(seed, lambda: Forecaster(load.shape[1]))
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    attach(model, optimizer, loss_fn)
    losses = []
    for _epoch in range(6):
        state: State | None = None
        for start in range(0, before.shape[1], WINDOW):
            given, wanted = before[:, start : start + WINDOW], after[:, start : start + WINDOW]
            if state is not None:
                state = (state[0].detach(), state[1].detach())
            predicted, state = model(given, state)
            loss = loss_fn(predicted, wanted)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
    return trained(losses)


CASE = Case(
    name="healthy-stateful-series",
    diagnosis=None,
    description="stateful LSTM forecaster: ordered windows, the carried state is detached on purpose",
    healthy=train,
    source="https://lightning.ai/docs/pytorch/stable/common/tbptt.html",
)
