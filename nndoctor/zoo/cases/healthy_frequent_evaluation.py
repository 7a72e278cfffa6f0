"""A short evaluation after every five steps: eval and train mode alternate, without_grad passes come in between."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import BatchNormCnn
from nndoctor.zoo.trainer import Trained, trained

STEPS_PER_EVALUATION = 5


def train(seed: int, attach: Attach, *, steps: int = 250) -> Trained:
    data = classification()
    loader = data.train_loader(32, seed=seed)
    model = seeded(seed, partial(BatchNormCnn, 6))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    losses: list[float] = []
    while len(losses) < steps:
        for inputs, targets in loader:
            model.train()
            optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) % STEPS_PER_EVALUATION == 0:
                model.eval()
                with torch.inference_mode():
                    val_loss = loss_fn(model(data.val_inputs[:250]), data.val_targets[:250]).item()
                doctor.observe(val_loss=val_loss)
            if len(losses) == steps:
                break
    return trained(losses)


CASE = Case(
    name="healthy-frequent-evaluation",
    diagnosis=None,
    description="BatchNorm CNN evaluated every five steps in inference mode, between training steps",
    healthy=train,
)
