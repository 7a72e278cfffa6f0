"""L-BFGS on the full batch: a closure that runs backward many times per step, always on the same data."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import ink_regression
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, trained


def train(seed: int, attach: Attach) -> Trained:
    data = ink_regression().first(3000)
    inputs, targets = data.train_inputs, data.train_targets
    model = seeded(seed, partial(Mlp, (inputs.shape[1], 32, 1), nn.Tanh))
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4, history_size=10)
    attach(model, optimizer, loss_fn)
    losses = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = loss_fn(model(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    for _step in range(100):
        losses.append(optimizer.step(closure).item())  # type: ignore[no-untyped-call]
    return trained(losses)


CASE = Case(
    name="healthy-lbfgs",
    diagnosis=None,
    description="L-BFGS with a closure, full batch: several backwards per step on the same inputs",
    healthy=train,
)
