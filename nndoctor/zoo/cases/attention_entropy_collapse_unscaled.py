"""An image encoder whose dot products are not scaled at all, with queries and keys initialised to unit variance."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import CLASSES
from nndoctor.zoo.trainer import Trained, fit

WIDTH, ROWS = 128, 28


class Encoder(nn.Module):
    """Takes the rows of an image as tokens and classifies from a token of its own, by attention alone."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.embed = nn.Linear(ROWS, WIDTH)
        self.answer = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.position = nn.Parameter(torch.randn(ROWS + 1, WIDTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        for layer in (self.query, self.key):
            nn.init.xavier_normal_(layer.weight)
        self.head = nn.Linear(WIDTH, CLASSES)

    def attend(self, stream: Tensor) -> Tensor:
        seen = self.norm(stream)
        scores = torch.einsum("bqd,bkd->bqk", self.query(seen), self.key(seen)) / self.temperature
        return stream + torch.einsum("bqk,bkd->bqd", nn.functional.softmax(scores, dim=-1), self.value(seen))

    def forward(self, images: Tensor) -> Tensor:
        rows = self.embed(images.squeeze(1))  # (batch, 28, width)
        stream = torch.cat([self.answer.expand(len(rows), 1, WIDTH), rows], dim=1) + self.position
        stream = self.attend(self.attend(stream))  # (batch, 29, width)
        logits: Tensor = self.head(stream[:, 0])
        return logits


def train(seed: int, attach: Attach, *, temperature: float, steps: int = 250) -> Trained:
    loader = classification().train_loader(seed=seed)
    model = seeded(seed, partial(Encoder, temperature))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="attention-entropy-collapse-unscaled",
    diagnosis="attention-entropy-collapse",
    description="attention over image rows, width 128, dot products not divided by sqrt(128)",
    sick=partial(train, temperature=1.0),
    cured=partial(train, temperature=WIDTH**0.5),
    place=("/attention",),
    remedies={"attention_temperature": "temperature"},
    source="https://arxiv.org/abs/1706.03762",
)
