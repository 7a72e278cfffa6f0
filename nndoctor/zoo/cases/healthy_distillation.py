"""Distillation: a trained teacher in eval mode runs beside the student, and the loss is a divergence near zero."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES, PIXELS, BatchNormCnn, Mlp
from nndoctor.zoo.trainer import Trained, fit, trained

TEMPERATURE = 4.0


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """How far the softened answers of both are apart, scaled back by the temperature (Hinton et al. 2015)."""
    wanted = (teacher / TEMPERATURE).softmax(1)
    given = (student / TEMPERATURE).log_softmax(1)
    return nn.functional.kl_div(given, wanted, reduction="batchmean") * TEMPERATURE**2


def train(seed: int, attach: Attach) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    teacher = seeded(seed, BatchNormCnn)
    fit(teacher, torch.optim.Adam(teacher.parameters(), lr=2e-3), nn.CrossEntropyLoss(), loader, 100)
    teacher.eval()
    student = seeded(seed, partial(Mlp, (PIXELS, 64, CLASSES)))
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
    attach(student, optimizer, loader=loader)
    losses = []
    for _epoch in range(3):
        for images, labels in loader:
            with torch.no_grad():
                answers = teacher(images)  # (batch, classes)
            logits = student(images)
            loss = 0.9 * divergence(logits, answers) + 0.1 * nn.functional.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
    return trained(losses)


CASE = Case(
    name="healthy-distillation",
    diagnosis=None,
    description="a student learns from the softened answers of a frozen teacher outside the optimizer",
    healthy=train,
    source="https://arxiv.org/abs/1503.02531",
)
