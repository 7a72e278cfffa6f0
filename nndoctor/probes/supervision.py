"""The targets, held against the inputs: whether they belong together, and whether the inputs hold the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from nndoctor.discovery import ModelIndex
from nndoctor.probes.association import (
    EXACT,
    MOST_CLASSES,
    MOST_ROWS,
    excess,
    explained_share,
    features_of,
    random_table,
    tells_classes_apart,
)
from nndoctor.probes.base import Measured
from nndoctor.probes.data import TARGET_NAMES, last_tensor

NODES = 48
"""Nodes of the graph looked at for the loss: it stands at the end, behind weights, sums and means."""

SMALLEST_BATCH = 8
MOST_LOOKS = 64
"""Looks at which inputs are held against targets; the pairing of a data set does not change later."""

LOOKS_TO_LEAK = 5
SHIFT_EVERY = 16
SHIFT_COLUMNS = 32
FEWEST_PAIRS = 64

SURVEYED = ("NllLossBackward0", "BinaryCrossEntropyWithLogitsBackward0", "BinaryCrossEntropyBackward0")
DISTANCES = ("MseLossBackward0", "SmoothL1LossBackward0", "HuberLossBackward0")


class KnowsBatch(Protocol):
    """Who knows which samples the batch at hand is made of."""

    @property
    def indices(self) -> Sequence[int] | None: ...


@dataclass(frozen=True)
class Supervision:
    """What a loss compares, one entry per sample.

    Args:
        target: class numbers, or real numbers, (samples,).
        classes: how many classes there are; None for real numbers.
        predicted: the class each sample was given, (samples,); None where scores are not kept.
        weighted: the loss has class weights.
    """

    target: torch.Tensor
    classes: int | None
    predicted: torch.Tensor | None
    weighted: bool


def supervision_of(loss: torch.Tensor) -> Supervision | None:
    """What the loss at the end of this graph compares, where a loss of torch made it and has one target per sample.

    Touches the graph through ``next_functions`` and the ``_saved_*`` attributes alone.
    """
    queue: list[Any] = [loss.grad_fn]
    for node in queue:
        name = type(node).__name__
        if name in SURVEYED or name in DISTANCES:
            return _read(node, name)
        queue.extend(child for child, _ in node.next_functions if child is not None)
        if len(queue) > NODES:
            return None
    return None


def _read(node: Any, name: str) -> Supervision | None:
    target, scores = _saved(node, "target"), _saved(node, "self")
    if target is None or scores is None:
        return None
    target, scores = target.detach(), scores.detach()
    if name == "NllLossBackward0":
        if target.dim() != 1 or scores.dim() != 2:
            return None
        return Supervision(target, scores.shape[1], scores.argmax(1), _saved(node, "weight") is not None)
    if target.numel() != target.shape[0] if target.dim() else True:
        return None  # several numbers per sample
    target = target.reshape(-1)
    if name in DISTANCES:
        return Supervision(target, None, None, False) if target.is_floating_point() else None
    limit = 0.0 if "Logits" in name else 0.5
    weighted = _saved(node, "pos_weight") is not None or _saved(node, "weight") is not None
    return Supervision((target > 0.5).long(), 2, (scores.reshape(-1) > limit).long(), weighted)


def _saved(node: Any, name: str) -> torch.Tensor | None:
    try:
        value = getattr(node, f"_saved_{name}", None)
    except RuntimeError:
        return None  # freed, or overwritten in place since
    return value if isinstance(value, torch.Tensor) else None


class SupervisionProbe:
    """Holds the targets of the first dozens of batches against their inputs.

    Args:
        batches: knows the indices of the batch at hand, for the question whether targets are off by one sample.
    """

    name = "supervision"
    tier = "data"
    signals = (
        "labels.looks", "labels.association", "labels.association_t", "labels.best_column_t", "labels.shifted_z",
        "labels.own_z", "labels.determined", "labels.determining_columns", "labels.determining_column",
    )  # fmt: skip

    def __init__(self, batches: KnowsBatch | None = None) -> None:
        self._batches = batches
        self._pairing = Pairing()
        self._inputs: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._from_loader: torch.Tensor | None = None
        self._looking = False

    def attach(self, index: ModelIndex) -> None:
        pass

    def detach(self) -> None:
        self._inputs, self._from_loader = None, None

    def begin_step(self, step: int, sampled: bool) -> None:
        self._looking = sampled and not self._pairing.done
        self._inputs, self._from_loader = None, None

    def batch_loaded(self, loader: object, batch: object, training: bool) -> None:
        if self._looking and training:
            self._from_loader = last_tensor(batch)

    def forward_begins(self, root: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Remember the inputs; of several passes in a step the last one before the first backward counts."""
        if self._looking:
            self._inputs = (args, dict(kwargs))

    @torch.no_grad()
    def backward_begins(self, loss: object) -> None:
        """Hold targets against inputs, for the first loss of the step."""
        if not self._looking or not isinstance(loss, torch.Tensor) or loss.grad_fn is None:
            return
        self._looking = False
        inputs, self._inputs = self._inputs, None
        found = supervision_of(loss) or self._loaders_word()
        if found is not None and inputs is not None and len(found.target) >= SMALLEST_BATCH:
            self._pairing.look(without_targets(inputs, found.target), found, self._batches.indices if self._batches is not None else None)

    def _loaders_word(self) -> Supervision | None:
        """The targets as the loader gave them, for losses that keep theirs to themselves."""
        target = self._from_loader
        if target is None or not target.is_floating_point() or not target.dim() or target.numel() != target.shape[0]:
            return None
        return Supervision(target.reshape(-1), None, None, False)

    def collect(self) -> Mapping[str, Measured]:
        return self._pairing.measured()


def without_targets(inputs: tuple[tuple[Any, ...], dict[str, Any]], target: torch.Tensor) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a forward pass but the targets: models that compute their own loss are handed them as well."""

    def same(value: object) -> bool:
        if not isinstance(value, torch.Tensor) or value.numel() != target.numel() or value.layout != torch.strided:
            return False
        return value.untyped_storage().data_ptr() == target.untyped_storage().data_ptr()

    args, kwargs = inputs
    return (
        [value for value in args if not same(value)],
        {name: value for name, value in kwargs.items() if name not in TARGET_NAMES and not same(value)},
    )


@dataclass
class Pooled:
    """What the looks so far have in common, per input column (columns,) or for their mean ().

    Args:
        excess, squares: sums over looks of the share beyond chance and of its square.
        mean, mean_squares: the same of the mean over columns.
        least: the smallest share of any look.
        varied: looks in which the column varied.
    """

    excess: torch.Tensor
    squares: torch.Tensor
    mean: torch.Tensor
    mean_squares: torch.Tensor
    least: torch.Tensor
    varied: torch.Tensor

    @staticmethod
    def none_yet(like: torch.Tensor) -> Pooled:
        zero, one = torch.zeros_like(like), like.new_zeros(())
        return Pooled(zero, zero, one, one, torch.ones_like(like), zero)

    def add(self, share: torch.Tensor, null: torch.Tensor) -> None:
        beyond = excess(share, null)
        known = torch.nan_to_num(beyond)
        mean = torch.nan_to_num(beyond.nanmean())
        self.excess = self.excess + known
        self.squares = self.squares + known.square()
        self.mean = self.mean + mean
        self.mean_squares = self.mean_squares + mean.square()
        self.least = torch.fmin(self.least, share)
        self.varied = self.varied + torch.isfinite(share)

    def fits(self, share: torch.Tensor) -> bool:
        return self.excess.shape == share.shape and self.excess.device == share.device


class Pairing:
    """Whether inputs tell anything of their own targets, of their neighbours' targets, or simply hold them."""

    def __init__(self) -> None:
        self._table: torch.Tensor | None = None
        self._pooled: Pooled | None = None
        self._apart: torch.Tensor | None = None
        self._looks = 0
        self._classes: int | None = None
        self._rows: list[tuple[np.ndarray[Any, Any] | None, torch.Tensor, torch.Tensor]] = []
        self._shifted: torch.Tensor | None = None
        self._own: torch.Tensor | None = None
        self._fresh: dict[str, Measured] = {}

    @property
    def done(self) -> bool:
        return self._looks >= MOST_LOOKS

    def _random_table(self) -> torch.Tensor:
        if self._table is None:
            self._table = random_table()
        return self._table

    def look(self, inputs: object, found: Supervision, indices: Sequence[int] | None) -> None:
        """Hold one batch of targets against its inputs; nothing where they are not one per sample."""
        classes = found.classes
        if self.done or (classes is not None and classes > MOST_CLASSES):
            return
        features = features_of(inputs, len(found.target), self._random_table)
        if features is None or features.device != found.target.device:
            return
        features, target = torch.nan_to_num(features[:MOST_ROWS]), found.target[:MOST_ROWS]
        if classes is not None:
            target = target.clamp(0, classes - 1)
        share, null, means = explained_share(features, target, classes)
        if self._pooled is None or not self._pooled.fits(share) or self._classes != classes:
            self._pooled, self._classes, self._looks = Pooled.none_yet(share), classes, 0
            self._rows, self._shifted, self._own = [], None, None
        self._pooled.add(share, null)
        if classes is not None:
            best = torch.where(self._pooled.varied > 0, self._pooled.least, -1.0).argmax()
            self._apart = tells_classes_apart(means.index_select(1, best[None])[:, 0])
        self._keep_rows(features, target, indices)
        self._looks += 1
        if self._looks % SHIFT_EVERY == 0:
            self._shifted = self._largest_shift()
            self._own = self._shift_in_batches(0)
        self._fresh = self._summary(self._pooled)
        if self.done:
            self._rows.clear()
            self._table = None

    def _keep_rows(self, features: torch.Tensor, target: torch.Tensor, indices: Sequence[int] | None) -> None:
        stride = max(1, features.shape[1] // SHIFT_COLUMNS)
        known = indices is not None and len(indices) >= len(target)
        numbers = np.asarray(indices, dtype=np.int64)[: len(target)] if known else None
        self._rows.append((numbers, features[:, ::stride][:, :SHIFT_COLUMNS].float(), target.clone()))  # half the memory

    def _largest_shift(self) -> torch.Tensor:
        """Standard errors by which inputs tell the targets of a neighbouring sample, the largest over four neighbours."""
        found = [self._shift_in_batches(1), self._shift_in_batches(-1)]
        if all(numbers is not None for numbers, _, _ in self._rows):
            found += [self._shift_by_index(1), self._shift_by_index(-1)]
        return torch.stack(found).amax()

    def _shift_in_batches(self, by: int) -> torch.Tensor:
        features = torch.cat([f[max(0, -by) : len(f) - max(0, by)] for _, f, _ in self._rows]).double()
        target = torch.cat([t[max(0, by) : len(t) + min(0, by)] for _, _, t in self._rows])
        return self._standard_errors(features, target)

    def _shift_by_index(self, by: int) -> torch.Tensor:
        numbers = np.concatenate([n for n, _, _ in self._rows if n is not None])
        order = np.argsort(numbers, kind="stable")
        place = np.searchsorted(numbers[order], numbers + by).clip(0, len(numbers) - 1)
        neighbour = order[place]
        matched = numbers[neighbour] == numbers + by
        device = self._rows[0][1].device
        if matched.sum() < FEWEST_PAIRS:
            return torch.zeros((), dtype=torch.float64, device=device)
        own = torch.from_numpy(np.flatnonzero(matched)).to(device, non_blocking=True)
        other = torch.from_numpy(neighbour[matched]).to(device, non_blocking=True)
        features = torch.cat([f for _, f, _ in self._rows]).double()
        target = torch.cat([t for _, _, t in self._rows])
        return self._standard_errors(features[own], target[other])

    def _standard_errors(self, features: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean excess share over its standard error, as if all columns were one (they are correlated)."""
        share, null, _ = explained_share(features, target, self._classes)
        spread = (2 * null * (len(target) - 1)).sqrt() / len(target)  # of a single column, by the chi-squared limit
        errors = torch.nan_to_num((share - null).nanmean() / spread)
        return torch.where(spread > 0, errors, 0.0)  # of one class alone nothing can be told, and rounding is no association

    def _summary(self, pooled: Pooled) -> dict[str, Measured]:
        n = self._looks
        measured: dict[str, Measured] = {"labels.looks": float(n)}
        if n >= 3:
            mean, error = _mean_and_error(pooled.excess, pooled.squares, n)
            measured["labels.best_column_t"] = torch.where(error > 0, mean / error, 0.0).amax().float()[None]
            overall, error = _mean_and_error(pooled.mean, pooled.mean_squares, n)
            measured["labels.association"] = overall.float()[None]
            measured["labels.association_t"] = (overall / error.clamp_min(1e-12)).float()[None]
        if n >= LOOKS_TO_LEAK and len(pooled.least) >= 2:
            exact = (pooled.least > 1 - EXACT) & (pooled.varied >= LOOKS_TO_LEAK)
            columns = exact.sum()
            together = columns >= max(1, (self._classes or 2) - 1)
            tells_all = together if self._apart is None else together | self._apart
            measured["labels.determined"] = ((columns > 0) & tells_all).float()[None]
            measured["labels.determining_columns"] = columns.float()[None]
            measured["labels.determining_column"] = torch.where(exact, pooled.least, -1.0).argmax().float()[None]
        if self._shifted is not None and self._own is not None:
            measured["labels.shifted_z"] = self._shifted.float()[None]
            measured["labels.own_z"] = self._own.float()[None]
        return measured

    def measured(self) -> dict[str, Measured]:
        """What the last look added, once."""
        fresh, self._fresh = self._fresh, {}
        return fresh


def _mean_and_error(total: torch.Tensor, squares: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of `count` numbers and its standard error, from their sum and the sum of their squares."""
    mean = total / count
    return mean, ((squares / count - mean.square()).clamp_min(0) / (count - 1)).sqrt()
