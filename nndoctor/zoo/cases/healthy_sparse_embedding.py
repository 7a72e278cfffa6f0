"""Sparse embedding gradients: most rows get none in a step, and the gradient is no dense tensor."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, load_images
from nndoctor.zoo.models import PIXELS, BagOfPixels
from nndoctor.zoo.trainer import Trained, trained

GREYS = 8
WORDS = 60


def brightest_pixels(images: Tensor) -> Tensor:
    """The `WORDS` brightest pixels of each image as tokens place * GREYS + grey: (count, WORDS), int64."""
    pixels = images.flatten(1)  # (count, 784)
    bright = pixels.float().topk(WORDS, dim=1).indices  # (count, WORDS)
    grey = pixels.gather(1, bright).long() * GREYS // 256  # (count, WORDS)
    return bright * GREYS + grey


def train(seed: int, attach: Attach) -> Trained:
    images = load_images()
    loader = batches(brightest_pixels(images.train_images), images.train_labels, seed=seed)
    model = seeded(seed, partial(BagOfPixels, PIXELS * GREYS))
    loss_fn = nn.CrossEntropyLoss()
    words = torch.optim.SparseAdam(list(model.bag.parameters()), lr=1e-2)
    rest = torch.optim.Adam([*model.hidden.parameters(), *model.head.parameters()], lr=1e-2)
    attach(model, [words, rest], loss_fn, loader=loader)
    losses = []
    for _epoch in range(4):
        for tokens, targets in loader:
            words.zero_grad()
            rest.zero_grad()
            loss = loss_fn(model(tokens), targets)
            loss.backward()
            words.step()  # type: ignore[no-untyped-call]
            rest.step()
            losses.append(loss.item())
    return trained(losses)


CASE = Case(
    name="healthy-sparse-embedding",
    diagnosis=None,
    description="EmbeddingBag(sparse=True) under SparseAdam, the rest under Adam",
    healthy=train,
)
