"""Which samples each step was trained on, and what the loss said of them: a ring of the last few hundred batches.

Follows every step at the cost of a few list operations. When a loss leaps out of its own history, or is
not finite, the batch that did it is still at hand: it is looked at there and then, and kept as an incident.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, TypeGuard

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import CONTRACT, Measured
from nndoctor.probes.data import first_tensor, last_tensor
from nndoctor.probes.loss_watch import LateLosses, Leap, LossWatch

RING = 512
MOST_INCIDENTS = 32
MOST_NAMED = 64
"""Indices of a batch that an incident names; what is left is counted."""

SMALLEST_BATCH = 8
"""Smaller batches leap by themselves: one hard sample is their whole loss."""

REFERENCE = 32
FEWEST_SCALES = 4
FINGERPRINT = 64
COPIES_REMEMBERED = 64

SHUFFLING = (RandomSampler, WeightedRandomSampler, SubsetRandomSampler)


@dataclass(slots=True)
class Batch:
    """One batch that a loader gave to the training.

    Args:
        epoch, number: passes of its loader before it, and its place in this one, from 1.
        size: samples in it; 0 where that cannot be told.
        indices: which samples of the data set it is made of; None where the loader does not tell.
        losses: what came of it, one for each backward call; NaN where the loss is still on its device.
    """

    epoch: int
    number: int
    size: int
    indices: Sequence[Any] | None
    losses: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the values of one batch are."""

    inputs: float
    targets: float | None


class BatchProbe:
    """Keeps the last batches with their losses; says which one a spike or a NaN came from."""

    name = "batches"
    tier = CONTRACT
    sleeps = frozenset({"loss_read", "stepped"})
    signals = (
        "loss.spike", "loss.setback", "loss.excursion", "batch.input_outlier", "batch.target_outlier", "batch.seen_in_spike",
        "input.nonfinite", "target.nonfinite", "loader.shuffled", "loader.copied", "loader.copied_apart",
    )  # fmt: skip

    def __init__(self) -> None:
        self.news = False
        self.ring: deque[tuple[int, tuple[Batch, ...]]] = deque(maxlen=RING)
        self.incidents: list[dict[str, Any]] = []
        self.loaded = 0
        """Training batches that arrived so far; each step notes it, so that its batches are known later."""
        self._taken = 0
        self._planned: dict[int, deque[Sequence[Any]]] = {}
        self._passes: dict[int, list[int]] = {}
        self._window: list[Batch] = []
        self._content: object = None
        self._watch = LossWatch()
        self._scales: deque[Scale] = deque(maxlen=REFERENCE)
        self._loader = LoaderHabits()
        self._step = 0
        self._sampled = False
        self._stepped: set[int] = set()
        self._late: LateLosses[tuple[Batch, int, int]] = LateLosses()
        self._broken = False
        self._measured: dict[str, Measured] = {}

    def attach(self, index: ModelIndex) -> None:
        pass

    def detach(self) -> None:
        self._content = None
        self._planned.clear()
        self._window.clear()

    @property
    def indices(self) -> Sequence[int] | None:
        """The samples of the batch that was loaded last, where the loader tells."""
        return self._window[-1].indices if self._window else None

    def begin_step(self, step: int, sampled: bool) -> None:
        self._step, self._sampled = step, sampled
        self._stepped.clear()

    # ------------------------------------------------------------------ what the loader does

    def batch_planned(self, sampler: object, indices: Sequence[Any]) -> None:
        self._planned.setdefault(id(sampler), deque(maxlen=4096)).append(indices)

    def loader_started(self, loader: object) -> None:
        """A new pass: forget what was planned in one that was left early."""
        sampler = getattr(loader, "batch_sampler", None)
        queue = self._planned.get(id(sampler))
        if queue is not None:
            ahead = planned_ahead(loader)
            while len(queue) > ahead:
                queue.popleft()
        passes = self._passes.setdefault(id(loader), [-1, 0])
        passes[0], passes[1] = passes[0] + 1, 0
        self._loader.started(loader)

    def batch_loaded(self, loader: object, batch: object, training: bool) -> None:
        queue = self._planned.get(id(getattr(loader, "batch_sampler", None)))
        indices = queue.popleft() if queue else None
        if not training:
            return
        passes = self._passes.setdefault(id(loader), [0, 0])
        passes[1] += 1
        if indices is not None and isinstance(indices, (list, tuple)) and indices and isinstance(indices[0], int):
            size = len(indices)
        else:
            target = last_tensor(batch)
            indices, size = None, len(target) if target is not None and target.dim() else 0
        self._window.append(Batch(passes[0], passes[1], size, indices))
        self.loaded += 1
        self._content = batch
        if self._sampled:
            self._loader.look(loader, batch, indices, passes[0])

    # ------------------------------------------------------------------ what the loss says

    def loss_read(self, loss: object, value: torch.Tensor | float) -> None:
        if not self._window:
            self._window.append(Batch(0, 0, 0, None))
        batch = self._window[-1]
        micro_step = sum(len(b.losses) for b in self._window) if len(self._window) > 1 or batch.losses else 0
        if isinstance(value, float):
            batch.losses.append(value)
            self._judge(batch, self._step, micro_step, value)
        else:
            batch.losses.append(float("nan"))
            self._late.add(value.reshape(()), (batch, self._step, micro_step))

    @property
    def loud(self) -> float:
        """The loss above which a quiet step is looked at while its batch is still at hand."""
        return self._watch.loud()

    def slept(self, step: int, losses: Sequence[torch.Tensor | float], loaded: int) -> None:
        """Hear of a quiet step afterwards.

        Args:
            step: its number.
            losses: of its micro-steps; each is taken for that of the batch with its number, the rest for the last one's.
            loaded: what `loaded` was at its end.
        """
        count = max(0, loaded - self._taken)
        self._taken = loaded
        batches = self._window[:count] or [Batch(0, 0, 0, None)]
        del self._window[:count]
        self._step = step
        for micro_step, value in enumerate(losses):
            batch = batches[min(micro_step, len(batches) - 1)]
            if isinstance(value, float):
                batch.losses.append(value)
                self._judge(batch, step, micro_step, value, past=True)
            else:
                batch.losses.append(float("nan"))
                self._late.add(value.reshape(()), (batch, step, micro_step))
        self._put_away(step, batches)

    def _put_away(self, step: int, batches: Sequence[Batch]) -> None:
        self.ring.append((step, tuple(batches)))
        self._step = step + 1
        for value, origin in self._late.arrived():
            self._judge(*origin, value)

    def _judge(self, batch: Batch, step: int, micro_step: int, value: float, *, past: bool = False) -> None:
        """Hold a loss against those before it; the batch is at hand only if `step` is the present one, and not past."""
        at_hand = self._content if step == self._step and not past else None
        if not isfinite(value):
            if not self._broken:
                self._not_finite(batch, step, micro_step, value, at_hand)
            self._broken = True
            return
        self._broken = False
        leap = self._watch.see(value)
        if leap is not None and self._may_leap(batch):
            self._spike(batch, step, micro_step, leap, at_hand)
        elif self._sampled and at_hand is not None:
            scale = scale_of(at_hand)
            if scale is not None:
                self._scales.append(scale)

    def _may_leap(self, batch: Batch) -> bool:
        """Whether one batch may stand for the data: the small rest at the end of an epoch may not."""
        recent = [b.size for _, batches in list(self.ring)[-16:] for b in batches]
        usual = sorted(recent)[len(recent) // 2] if recent else batch.size
        return batch.size == 0 or batch.size >= max(SMALLEST_BATCH, usual // 2)

    def _spike(self, batch: Batch, step: int, micro_step: int, leap: Leap, content: object) -> None:
        found: dict[str, Measured] = {
            "loss.spike": leap.deviations, "loss.setback": leap.setback, "loss.excursion": leap.excursion,
        }  # fmt: skip
        culprits: list[int] = []
        scale = scale_of(content)
        if scale is not None and len(self._scales) >= FEWEST_SCALES:
            found["batch.input_outlier"] = scale.inputs / max(*(s.inputs for s in self._scales), 1e-30)
            known = [s.targets for s in self._scales if s.targets is not None]
            if scale.targets is not None and len(known) >= FEWEST_SCALES:
                found["batch.target_outlier"] = scale.targets / max(*known, 1e-30)
            culprits = outlying_samples(content, self._scales)
        seen = self._seen_in_a_spike(batch)
        if seen is not None:
            found["batch.seen_in_spike"] = seen
        self._tell(found)
        self._incident(("loss.spike",), batch, step, micro_step, culprits, {"loss": leap.loss, "usual": leap.usual})

    def _not_finite(self, batch: Batch, step: int, micro_step: int, value: float, content: object) -> None:
        inputs, targets = first_tensor(content), last_tensor(content)
        found: dict[str, Measured] = {}
        if at_host(inputs):
            found["input.nonfinite"] = float((~torch.isfinite(inputs)).sum().item())
        if at_host(targets) and targets is not inputs:
            found["target.nonfinite"] = float((~torch.isfinite(targets)).sum().item())
        self._tell(found)
        signals = ("loss.nonfinite", "input.nonfinite", "target.nonfinite")
        self._incident(signals, batch, step, micro_step, nonfinite_samples(content), {"loss": str(value)})

    def _seen_in_a_spike(self, batch: Batch) -> float | None:
        """Share of the batch that was in the batch of an earlier spike, of another epoch; None for the first one."""
        before = [i for i in self.incidents if "loss.spike" in i["signals"] and "indices" in i and i["epoch"] <= batch.epoch]
        if batch.indices is None or not before:
            return None
        here = set(batch.indices[:MOST_NAMED])
        return max(len(here & set(incident["indices"])) for incident in before) / len(here)

    def _tell(self, found: Mapping[str, Measured]) -> None:
        self._measured.update(found)
        self.news = True

    def _incident(
        self, signals: Sequence[str], batch: Batch, step: int, micro_step: int, culprits: Sequence[int], more: Mapping[str, Any]
    ) -> None:
        if len(self.incidents) >= MOST_INCIDENTS:
            return
        told: dict[str, Any] = {"signals": list(signals), "step": step, "size": batch.size, **more}
        if batch.number:
            told.update(epoch=batch.epoch + 1, batch=batch.number)
        if micro_step:
            told["micro_step"] = micro_step + 1
        if batch.indices is not None:
            told["indices"] = [int(i) for i in batch.indices[:MOST_NAMED]]
            told["samples"] = [int(batch.indices[i]) for i in culprits[:MOST_NAMED] if i < len(batch.indices)]
        elif culprits:
            told["rows"] = list(culprits[:MOST_NAMED])
        self.incidents.append(told)

    # ------------------------------------------------------------------ the end of a step

    def stepped(self, optimizer: object) -> None:
        """Put away what this step was trained on; with several optimizers, when the first of them steps again."""
        if id(optimizer) in self._stepped or not self._stepped:
            self._stepped = {id(optimizer)}
            batches, self._window, self._taken, self._content = self._window, [], self.loaded, None
            self._put_away(self._step, batches)
        else:
            self._stepped.add(id(optimizer))

    def collect(self) -> Mapping[str, Measured]:
        self.news = False
        measured, self._measured = self._measured, {}
        measured.update(self._loader.measured())
        return measured

    def facts(self) -> dict[str, Any]:
        return {"incidents": [dict(incident) for incident in self.incidents]} if self.incidents else {}


def planned_ahead(loader: object) -> int:
    """Batches that a loader with workers has planned when its iterator is handed out."""
    if not isinstance(loader, DataLoader) or not loader.num_workers:
        return 0
    ahead = (loader.prefetch_factor or 2) * loader.num_workers
    try:
        return min(ahead, len(loader))
    except TypeError:
        return ahead


def at_host(tensor: torch.Tensor | None) -> TypeGuard[torch.Tensor]:
    """Whether this is a tensor of real numbers that can be read without waiting for a device."""
    return tensor is not None and tensor.device.type == "cpu" and tensor.is_floating_point() and tensor.numel() > 0


@torch.no_grad()
def scale_of(batch: object) -> Scale | None:
    """The largest magnitude of inputs and of real targets; None where they are no real numbers on the host."""
    inputs, targets = first_tensor(batch), last_tensor(batch)
    if not at_host(inputs):
        return None
    real = at_host(targets) and targets is not inputs
    return Scale(float(inputs.abs().amax().item()), float(targets.abs().amax().item()) if real and targets is not None else None)


OUTLYING = 3.0
"""Times the largest magnitude of any other batch that was looked at and did not make the loss leap. Heavy tails (a
price in fifty five times as high; t with three degrees of freedom) reach three times the usual maximum every few
batches, hardly ever three times the largest of dozens."""


def outlying_samples(batch: object, scales: Sequence[Scale]) -> list[int]:
    """Rows whose inputs or targets are far larger than those of other batches."""
    limits = [(first_tensor(batch), max(s.inputs for s in scales))]
    known = [s.targets for s in scales if s.targets is not None]
    if known:
        limits.append((last_tensor(batch), max(known)))
    rows: set[int] = set()
    for tensor, most in limits:
        if at_host(tensor) and tensor.dim():
            largest = tensor.detach().abs().reshape(len(tensor), -1).amax(1)
            rows.update((largest > OUTLYING * most).nonzero()[:, 0].tolist())
    return sorted(rows)


def nonfinite_samples(batch: object) -> list[int]:
    """Rows of inputs or targets that hold NaN or infinity."""
    rows: set[int] = set()
    for tensor in (first_tensor(batch), last_tensor(batch)):
        if at_host(tensor) and tensor.dim():
            broken = ~torch.isfinite(tensor.detach()).reshape(len(tensor), -1).all(1)
            rows.update(broken.nonzero()[:, 0].tolist())
    return sorted(rows)


class LoaderHabits:
    """Whether the training loader shuffles, and whether it serves the same batch twice in one pass."""

    def __init__(self) -> None:
        self._measured: dict[str, Measured] = {}
        self._weights: torch.Tensor | None = None
        self._prints: deque[tuple[int, torch.Tensor, frozenset[Any] | None]] = deque(maxlen=COPIES_REMEMBERED)
        self._copied: torch.Tensor | float = 0.0
        self._apart: torch.Tensor | float = 0.0
        self._epoch = 0

    def started(self, loader: object) -> None:
        shuffles = shuffled(loader)
        if shuffles is not None:
            self._measured["loader.shuffled"] = float(shuffles)

    @torch.no_grad()
    def look(self, loader: object, batch: object, indices: Sequence[Any] | None, epoch: int) -> None:
        """Compare a batch with the last ones of the same pass, sample by sample in order."""
        shuffles = shuffled(loader)
        if shuffles is not None:
            self._measured["loader.shuffled"] = float(shuffles)
        tensor = first_tensor(batch)
        if tensor is None or tensor.dim() < 1 or len(tensor) < SMALLEST_BATCH or tensor.layout != torch.strided or tensor.is_complex():
            return
        if epoch != self._epoch:
            self._epoch = epoch
            self._prints.clear()
        marks = self._marks(tensor.detach())
        others = [p for _, p, _ in self._prints if p.shape == marks.shape and p.device == marks.device]
        named = frozenset(indices) if indices is not None else None
        if others:
            before = torch.stack(others)
            varied = (marks[1:] != marks[:-1]).float().mean() > 0.5
            same = ((before == marks).all(1).any() & varied).float()
            self._copied = self._copied + same
            self._measured["loader.copied"] = self._copied[None]
            if named is not None and all(n is None or not (n & named) for _, _, n in self._prints):
                self._apart = self._apart + same
                self._measured["loader.copied_apart"] = self._apart[None]
        self._prints.append((epoch, marks, named))

    def _marks(self, tensor: torch.Tensor) -> torch.Tensor:
        """A number per sample that equal samples share, of at most 64 samples, float64 (samples,)."""
        rows = tensor[:FINGERPRINT].reshape(min(len(tensor), FINGERPRINT), -1)
        stride = -(-rows.shape[1] // 4096)
        rows = rows[:, :: stride + (stride > 1 and stride % 2 == 0)].double()
        if self._weights is None or self._weights.device != rows.device or len(self._weights) < rows.shape[1]:
            generator = torch.Generator().manual_seed(20_002)
            self._weights = torch.rand(4096, generator=generator, dtype=torch.float64).to(rows.device)
        return torch.nan_to_num(rows) @ self._weights[: rows.shape[1]]

    def measured(self) -> dict[str, Measured]:
        measured, self._measured = self._measured, {}
        return measured


def shuffled(loader: object) -> bool | None:
    """Whether a loader mixes its samples; None where its sampler is not one of torch's own."""
    sampler = getattr(loader, "sampler", None)
    if type(getattr(loader, "batch_sampler", None)) is not BatchSampler:
        return None
    if isinstance(sampler, SHUFFLING):
        return True
    if isinstance(sampler, DistributedSampler):
        return bool(sampler.shuffle)
    return False if isinstance(sampler, SequentialSampler) else None
