"""A table whose header line was skipped in one file and not in the other: every row has its neighbour's target."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, evaluate, fit

ROWS, COLUMNS = 4000, 12


def table(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Measurements (rows, columns) and what they determine up to a little noise (rows, 1)."""
    generator = torch.Generator().manual_seed(200 + seed)
    inputs = torch.randn(ROWS, COLUMNS, generator=generator)
    weights = torch.randn(COLUMNS, generator=generator)
    clean = inputs @ weights / COLUMNS**0.5 + 0.3 * inputs[:, 0] * inputs[:, 1]
    targets = clean + 0.1 * torch.randn(ROWS, generator=generator)
    return inputs, (targets / targets.std()).unsqueeze(1)


def train(seed: int, attach: Attach, *, shift: int, steps: int = 300) -> Trained:
    inputs, targets = table(seed)
    loader = batches(inputs[:3500], targets.roll(shift, 0)[:3500], 32, seed=seed)
    model = seeded(seed, lambda: Mlp((COLUMNS, 64, 64, 1)))
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    held_out = batches(inputs[3500:], targets[3500:], 250, shuffle=False)
    return Trained(run.losses, evaluate(model, loss_fn, held_out)[0])


CASE = Case(
    name="labels-misaligned-off-by-one",
    diagnosis="labels-misaligned",
    description="regression on a table, SGD: row n has the target of row n - 1",
    sick=partial(train, shift=1),
    cured=partial(train, shift=0),
    source="https://github.com/JonasGeiping/invertinggradients/issues/4",
)
