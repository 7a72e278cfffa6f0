"""The logarithm of a softmax, written out: a confident net underflows to log(0) where log_softmax would not."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import BatchNormCnn
from nndoctor.zoo.trainer import Trained, fit


def written_out(logits: Tensor, labels: Tensor, epsilon: float, temperature: float) -> Tensor:
    """Cross entropy by its definition, of logits divided by a temperature."""
    probabilities = torch.softmax(logits / temperature, dim=1)  # (batch, classes)
    right = probabilities.gather(1, labels[:, None])  # (batch, 1)
    return -torch.log(right + epsilon).mean()


def train(seed: int, attach: Attach, *, epsilon: float, steps: int = 120) -> Trained:
    data = classification()
    loader = data.train_loader(32, seed=seed)
    model = seeded(seed, partial(BatchNormCnn, width=6, dropout=0.0))
    loss_fn = partial(written_out, epsilon=epsilon, temperature=0.02)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, clip=1.0, doctor=doctor)


CASE = Case(
    name="unstable-loss-log",
    diagnosis="unstable-loss-op",
    description="CNN, SGD: -log(softmax(x / 0.02)) without epsilon",
    sick=partial(train, epsilon=0.0),
    cured=partial(train, epsilon=1e-6),
    place=("loss/log",),
    remedies={"epsilon": "epsilon"},
    source="https://github.com/kornia/kornia/issues/918",
)
