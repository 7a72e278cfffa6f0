"""A batch too large for memory is cut into pieces; each piece's mean error goes to backward as it is."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import ink_regression
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, trained

PIECES = 16


def train(seed: int, attach: Attach, *, divisor: float, steps: int = 150) -> Trained:
    data = ink_regression()
    draw = torch.Generator().manual_seed(seed)
    model = seeded(seed, partial(Mlp, (14 * 28, 64, 64, 1), nn.Tanh))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    attach(model, optimizer)
    losses = []
    for _step in range(steps):
        chosen = torch.randint(len(data.train_inputs), (256,), generator=draw)
        inputs, targets = data.train_inputs[chosen], data.train_targets[chosen]  # (256, features), (256, 1)
        optimizer.zero_grad()
        step_loss = 0.0
        for some, wanted in zip(inputs.chunk(PIECES), targets.chunk(PIECES), strict=True):
            loss = nn.functional.mse_loss(model(some), wanted)
            (loss / divisor if divisor != 1 else loss).backward()  # type: ignore[no-untyped-call]
            step_loss += loss.item() / PIECES
        nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        optimizer.step()
        losses.append(step_loss)
    return trained(losses)


CASE = Case(
    name="accumulation-undivided-pieces",
    diagnosis="gradient-accumulation-misnormalised",
    description="regression MLP, SGD with momentum: sixteen pieces of a batch per step, their mean errors are summed",
    sick=partial(train, divisor=1),
    cured=partial(train, divisor=PIECES),
    remedies={"loss_divisor": "divisor", "loss = loss / accumulation_steps": {}},
    source="https://github.com/huggingface/transformers/issues/37197",
)
