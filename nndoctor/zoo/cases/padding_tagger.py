"""A tagger whose padded positions carry a label of their own that the loss counts like the others."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, pixel_tokens
from nndoctor.zoo.trainer import Trained, fit

LEVELS, LENGTH = 16, 40
PAD_TOKEN, PAD_LABEL = LEVELS, 3


class Tagger(nn.Module):
    """A bidirectional GRU over tokens with one answer per position."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(LEVELS + 1, 16, padding_idx=PAD_TOKEN)
        self.gru = nn.GRU(16, 24, batch_first=True, bidirectional=True)
        self.head = nn.Linear(48, PAD_LABEL + 1)

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.gru(self.embed(tokens))  # (batch, length, 48)
        logits: Tensor = self.head(states)  # (batch, length, labels)
        return logits.transpose(1, 2)  # (batch, labels, length)


def tagged(seed: int, count: int = 3000) -> tuple[Tensor, Tensor]:
    """Pixels and whether the one two places later is darker, alike or brighter; both padded, (count, length)."""
    pixels = pixel_tokens().train_inputs[:count, : LENGTH + 2]
    change = (pixels[:, 2:] - pixels[:, :-2]).sign() + 1  # (count, length), 0 to 2
    lengths = torch.randint(2, 9, (count, 1), generator=torch.Generator().manual_seed(seed))
    lengths[::25] = LENGTH
    real = torch.arange(LENGTH) < lengths
    start = LENGTH // 2  # the upper edge of a picture is all black
    rolled_pixels, rolled_change = pixels[:, :-2].roll(-start, 1), change.roll(-start, 1)
    return torch.where(real, rolled_pixels, PAD_TOKEN), torch.where(real, rolled_change, PAD_LABEL)


def train(seed: int, attach: Attach, *, ignore_index: float, steps: int = 150) -> Trained:
    tokens, labels = tagged(seed)
    loader = batches(tokens[:2500], labels[:2500], 32, seed=seed)
    model = seeded(seed, Tagger)
    loss_fn = nn.CrossEntropyLoss(ignore_index=int(ignore_index))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    with torch.no_grad():
        answers, truth = model(tokens[2500:]).argmax(1), labels[2500:]
        wrong: Tensor = (answers != truth)[truth != PAD_LABEL]
    return Trained(run.losses, wrong.float().mean().item())


CASE = Case(
    name="padding-in-tagger",
    diagnosis="padding-in-loss",
    description="bidirectional GRU, SGD: padded positions have a label of their own, and the loss counts them",
    sick=partial(train, ignore_index=-100),
    cured=partial(train, ignore_index=PAD_LABEL),
    remedies={"ignore_index": "ignore_index"},
    source="https://github.com/lucidrains/DALLE-pytorch/issues/57",
)
