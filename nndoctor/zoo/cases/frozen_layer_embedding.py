"""Embedding.from_pretrained with random vectors: it freezes what it is given unless told otherwise."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.cases.healthy_sparse_embedding import GREYS, brightest_pixels
from nndoctor.zoo.data import batches, load_images
from nndoctor.zoo.models import CLASSES, PIXELS
from nndoctor.zoo.trainer import Trained, fit


class BagOfWords(nn.Module):
    """The mean of embeddings, one hidden layer, a classifier."""

    def __init__(self, freeze: bool, width: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(torch.randn(PIXELS * GREYS, width), freeze=freeze)  # type: ignore[no-untyped-call]
        self.hidden = nn.Linear(width, 64)
        self.relu = nn.ReLU()
        self.head = nn.Linear(64, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        mean = self.embedding(words).mean(1)  # (batch, width)
        logits: Tensor = self.head(self.relu(self.hidden(mean)))  # (batch, classes)
        return logits


def train(seed: int, attach: Attach, *, freeze: bool, steps: int = 400) -> Trained:
    images = load_images()
    loader = batches(brightest_pixels(images.train_images), images.train_labels, seed=seed)
    model = seeded(seed, partial(BagOfWords, freeze))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="frozen-layer-embedding",
    diagnosis="frozen-layer-unintended",
    description="bag of words: Embedding.from_pretrained(random vectors) freezes the embedding by default",
    sick=partial(train, freeze=True),
    cured=partial(train, freeze=False),
    place=("embedding",),
    remedies={"requires_grad": {"freeze": False}},
    source="https://github.com/huggingface/optimum-graphcore/pull/304",
)
