"""The plain training loop of the experiments, and what is read from it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn
from torch.optim import Optimizer

from nndoctor.zoo.experiments.images import Images

CHANCE_LOSS = math.log(10)
DIVERGED = 1e6
"""Stands for a loss that is no number any more."""


@dataclass(frozen=True)
class Fitted:
    """A finished training: the loss of every step, and what it reached on the test images."""

    losses: tuple[float, ...]
    test_loss: float
    accuracy: float

    @property
    def final_loss(self) -> float:
        """Mean of the last twenty steps."""
        return statistics.fmean(self.losses[-20:])


def fit(
    model: nn.Module,
    optimizer: Optimizer,
    images: Images,
    *,
    batch_size: int,
    epochs: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    after_step: Callable[[int, float], None] | None = None,
    after_epoch: Callable[[int], None] | None = None,
) -> Fitted:
    """Train for `epochs`, or for `steps`, on full batches whose order depends on `seed` alone; cross entropy.

    Args:
        after_step: called with the number of the step, from 0, and its loss.
        after_epoch: called with the number of the epoch, from 1.
    """
    generator = torch.Generator().manual_seed(seed)
    count = len(images.train_inputs)
    wanted = steps if steps is not None else (epochs or 0) * (count // batch_size)
    losses: list[float] = []
    epoch = 0
    while len(losses) < wanted:
        model.train()
        for picked in torch.split(torch.randperm(count, generator=generator), batch_size)[: count // batch_size]:
            if len(losses) == wanted:
                break
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images.train_inputs[picked]), images.train_targets[picked])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            value = loss.item()
            losses.append(value if math.isfinite(value) else DIVERGED)
            if after_step is not None:
                after_step(len(losses) - 1, losses[-1])
        epoch += 1
        if after_epoch is not None:
            after_epoch(epoch)
    return Fitted(tuple(losses), *judged(model, images))


@torch.no_grad()
def judged(model: nn.Module, images: Images) -> tuple[float, float]:
    """Mean loss and accuracy on the test images, in evaluation mode; the mode is put back."""
    was_training = model.training
    model.eval()
    total, right = 0.0, 0
    for inputs, targets in images.test_batches():
        outputs = model(inputs)
        total += float(F.cross_entropy(outputs, targets, reduction="sum"))
        right += int((outputs.argmax(1) == targets).sum())
    model.train(was_training)
    loss = total / len(images.test_targets)
    return loss if math.isfinite(loss) else DIVERGED, right / len(images.test_targets)


def matrices(model: nn.Module) -> dict[str, Tensor]:
    """Weights of two dimensions or more by the name of their layer, in order."""
    return {name.removesuffix(".weight"): p for name, p in model.named_parameters() if p.dim() > 1}


def smoothed(values: Sequence[float], width: int = 25) -> list[float]:
    """Median of each value and up to ``width - 1`` before it."""
    return [statistics.median(values[max(0, i + 1 - width) : i + 1]) for i in range(len(values))]


def rank_correlation(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Spearman's; NaN where one of them is constant."""
    constant = len(set(xs)) < 2 or len(set(ys)) < 2
    return math.nan if constant else float(stats.spearmanr(xs, ys).statistic)


def linear_correlation(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Pearson's; NaN where one of them is constant."""
    constant = len(set(xs)) < 2 or len(set(ys)) < 2
    return math.nan if constant else float(stats.pearsonr(xs, ys).statistic)
