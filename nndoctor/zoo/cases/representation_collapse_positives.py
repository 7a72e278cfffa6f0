"""Views of one picture are pulled together and nothing is pushed apart: one embedding for all is the best answer."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import PIXELS
from nndoctor.zoo.trainer import Trained

TEMPERATURE = 0.2


class Encoder(nn.Module):
    """Embeddings (batch, 64) of pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(PIXELS, 128), nn.ReLU(), nn.Linear(128, 64))

    def forward(self, images: Tensor) -> Tensor:
        embeddings: Tensor = self.body(images.flatten(1))
        return embeddings


def loss_of(one: Tensor, other: Tensor, negatives: str) -> Tensor:
    """Disagreement of two views; with ``in-batch`` negatives, the other pictures of the batch are told apart (SimCLR)."""
    if negatives == "none":
        return 1 - nn.functional.cosine_similarity(one, other).mean()
    one, other = nn.functional.normalize(one, dim=1), nn.functional.normalize(other, dim=1)
    return nn.functional.cross_entropy(one @ other.t() / TEMPERATURE, torch.arange(len(one)))


@torch.no_grad()
def error_of_neighbours(model: Encoder) -> float:
    """Share of pictures whose nearest neighbour among 2 000 others, by embedding, is of another class."""
    data = classification()
    model.eval()
    known, asked = (
        nn.functional.normalize(model(images), dim=1) for images in (data.train_inputs[:2000], data.val_inputs)
    )
    nearest = (asked @ known.t()).argmax(1)  # (count,)
    return float((data.train_targets[:2000][nearest] != data.val_targets).float().mean())


def train(seed: int, attach: Attach, *, negatives: str, steps: int = 250) -> Trained:
    loader = classification().train_loader(128, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    model = seeded(seed, Encoder)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    attach(model, optimizer, loader=loader)
    losses: list[float] = []
    while len(losses) < steps:
        for images, _ in loader:
            one, other = (model(images + 0.5 * torch.randn(images.shape, generator=draw)) for _view in range(2))
            loss = loss_of(one, other, negatives)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
            if len(losses) == steps:
                break
    return Trained(tuple(losses), error_of_neighbours(model))


CASE = Case(
    name="representation-collapse-positives",
    diagnosis="representation-collapse",
    description="two views pulled together by cosine, without negatives; judged by nearest neighbours",
    sick=partial(train, negatives="none"),
    cured=partial(train, negatives="in-batch"),
    remedies={"negatives": "negatives"},
    source="https://arxiv.org/abs/2011.10566",
)
