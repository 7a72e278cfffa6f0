"""Mean teacher: half of the batch has no label, and a moving average of the net, outside the model, judges it."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES, PIXELS, Mlp
from nndoctor.zoo.trainer import Trained, trained

LABELLED = 1000


def train(seed: int, attach: Attach, *, steps: int = 300) -> Trained:
    data = classification()
    draw = torch.Generator().manual_seed(seed)
    student = seeded(seed, partial(Mlp, (PIXELS, 128, 64, CLASSES)))
    teacher = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(0.98))  # type: ignore[no-untyped-call]
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    attach(student, optimizer, loss_fn)
    losses = []
    for step in range(steps):
        known = torch.randint(LABELLED, (32,), generator=draw)
        unknown = torch.randint(LABELLED, len(data.train_inputs), (32,), generator=draw)
        images = data.train_inputs[torch.cat([known, unknown])]  # (64, 1, 28, 28)
        with torch.no_grad():
            wanted = teacher(images + 0.2 * torch.randn(images.shape, generator=draw)).softmax(1)
        logits = student(images + 0.2 * torch.randn(images.shape, generator=draw))
        agreement = nn.functional.mse_loss(logits.softmax(1), wanted)
        loss = loss_fn(logits[:32], data.train_targets[known]) + min(1.0, step / 100) * 5 * agreement
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        teacher.update_parameters(student)
        losses.append(loss.item())
    return trained(losses)


CASE = Case(
    name="healthy-mean-teacher",
    diagnosis=None,
    description="semi-supervised: an averaged teacher without gradients, half of the logits never meet a label",
    healthy=train,
    source="https://arxiv.org/abs/1703.01780",
)
