"""How often each class comes, in which order, and whether it is ever predicted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from nndoctor.discovery import ModelIndex
from nndoctor.probes.association import MOST_CLASSES, tensors_in
from nndoctor.probes.base import CONTRACT, FREQUENT, Measured
from nndoctor.probes.supervision import SMALLEST_BATCH, Supervision, supervision_of

FADE = 0.98
"""What one look leaves of the counts before it: they remember about the last 50."""

PATIENCE = 64
"""Backward calls without a look after which there is one though the step is not sampled. Very short steps are hardly
ever sampled, and a class that is learnt late is told from one that is ignored by looks that lie far apart."""


class BalanceProbe:
    """Pools the true and the predicted classes of the batches, where each sample has one target."""

    name = "balance"
    tier = CONTRACT
    sleeps = FREQUENT - {"backward_begins"}
    signals = (
        "labels.seen", "labels.entropy", "labels.majority_fraction", "labels.balance_ratio", "labels.ignored_classes",
        "labels.ignored_samples", "labels.weighted", "labels.neighbours_equal", "labels.neighbours_expected",
        "labels.one_class_batches", "labels.classes_seen", "predictions.majority_fraction",
    )  # fmt: skip

    def __init__(self) -> None:
        self.news = False
        self._balance: Balance | None = None
        self._sampled = False
        self._since_look = 0
        self._untold = False
        self._rows: set[int] = set()
        self._weighted = False

    def attach(self, index: ModelIndex) -> None:
        pass

    def detach(self) -> None:
        self._balance = None

    def begin_step(self, step: int, sampled: bool) -> None:
        self._sampled = sampled

    def forward_begins(self, root: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if self._sampled or self._since_look == PATIENCE - 1:
            self._rows = {len(tensor) for tensor in tensors_in((args, kwargs)) if tensor.dim()}

    @torch.no_grad()
    def backward_begins(self, loss: object) -> None:
        self._since_look += 1
        if not (self._sampled or self._since_look >= PATIENCE):
            return
        self._since_look = 0
        if not isinstance(loss, torch.Tensor) or loss.grad_fn is None:
            return
        found = supervision_of(loss)
        if found is None or found.classes is None or found.classes > MOST_CLASSES or len(found.target) < SMALLEST_BATCH:
            return
        if len(found.target) not in self._rows:
            return  # tokens or pixels are classified, not samples
        if self._balance is None or not self._balance.fits(found):
            self._balance = Balance(found.classes, found.target.device)
        self._balance.look(found)
        self._weighted = found.weighted
        self._untold = True
        self.news = not self._sampled

    @torch.no_grad()
    def collect(self) -> Mapping[str, Measured]:
        self.news = False
        if self._balance is None or not self._untold:
            return {}
        self._untold = False
        return {**self._balance.measured(), "labels.weighted": float(self._weighted)}


class Balance:
    """Counts of true and predicted classes over about the last fifty looks, on the device of the targets."""

    def __init__(self, classes: int, device: torch.device) -> None:
        self._classes, self._device = classes, device
        self._counts = torch.zeros(2 * classes, device=device)  # true, predicted
        self._missed = torch.zeros(classes, device=device)  # samples since the last one that was predicted rightly
        self._ever = torch.zeros(classes, device=device)
        self._equal = torch.zeros((), device=device)
        self._one_class = torch.zeros((), device=device)
        self._pairs = self._looks = 0.0
        self._predicts = False

    def fits(self, found: Supervision) -> bool:
        return found.classes == self._classes and found.target.device == self._device

    def look(self, found: Supervision) -> None:
        """Add one batch; targets outside of the classes (ignored ones) do not count."""
        classes = self._classes
        valid = (found.target >= 0) & (found.target < classes)
        target = torch.where(valid, found.target, 0).long()
        one = valid.float()
        index, weight = target, one
        if found.predicted is not None:
            self._predicts = True
            given = found.predicted.long()
            index = torch.cat((target, given + classes, target + 2 * classes))
            weight = torch.cat((one, one, one * (given == target)))
        batch = self._counts.new_zeros(3 * classes).index_add_(0, index, weight)
        self._counts = FADE * self._counts + batch[: 2 * classes]
        self._missed = torch.where(batch[2 * classes :] > 0.5, 0.0, self._missed + batch[:classes])
        self._ever = self._ever + batch[:classes]
        self._equal = FADE * self._equal + ((target[1:] == target[:-1]) & valid[1:] & valid[:-1]).sum()
        self._one_class = FADE * self._one_class + ((batch[:classes] > 0).sum() <= 1)
        self._pairs = FADE * self._pairs + len(target) - 1
        self._looks = FADE * self._looks + 1

    def measured(self) -> dict[str, Measured]:
        """The signals of what was pooled so far, each of shape (1,)."""
        true, given = self._counts.reshape(2, self._classes)
        seen = true.sum()
        share = true / seen
        most = true.amax()
        least = torch.where(true > 0.5, true, torch.inf).amin()
        measured: dict[str, Measured] = {
            "labels.seen": seen[None],
            "labels.entropy": -torch.xlogy(share, share).sum()[None],
            "labels.majority_fraction": (most / seen)[None],
            "labels.balance_ratio": (most / least)[None],
            "labels.classes_seen": (self._ever > 0).sum().float()[None],
            "labels.neighbours_equal": (self._equal / self._pairs)[None],
            "labels.neighbours_expected": share.square().sum()[None],
            "labels.one_class_batches": (self._one_class / self._looks)[None],
        }
        if self._predicts:
            # Rare: a tenth of the most frequent class, where SageMaker Debugger's ClassImbalance speaks of imbalance.
            ignored = (self._missed >= 5) & (true * 10 <= most)
            measured["labels.ignored_classes"] = ignored.sum().float()[None]
            measured["labels.ignored_samples"] = (self._missed * ignored).sum()[None]
            measured["predictions.majority_fraction"] = (given.amax() / seen)[None]
        return measured
