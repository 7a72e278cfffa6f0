"""One step cut into tiles: the stamps that are made while it runs, and what they add up to.

Each stamp says whose work begins now, so every interval belongs to exactly one label and the tiles add up to the step
by construction. Nothing here knows a model: layers and parameter groups are numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndoctor.signals import Values

NAN = float("nan")
NANOSECONDS = 1e9

# Labels: 3 n, 3 n + 1 and 3 n + 2 are forward, backward and repeated forward of layer n; -100 - g is the step of
# parameter group g; what lies between is the named rest.
FORWARD, BACKWARD, RECOMPUTED = range(3)
(REST, DATA_WAIT, PREPARE, TO_DEVICE, ZERO_GRAD, FORWARD_OTHER, LOSS, BACKWARD_OTHER, RECOMPUTED_OTHER, CLIPPING, SCALER,
 OPTIMIZER, SCHEDULER, EVALUATION, CHECKPOINT, DOCTOR) = range(-1, -17, -1)  # fmt: skip
FIRST_GROUP = -100

NAMED: Mapping[int, tuple[str, str]] = {
    DATA_WAIT: ("tile.data_wait", "data wait"),
    PREPARE: ("tile.prepare", "batch preparation"),
    TO_DEVICE: ("tile.to_device", "host to device"),
    ZERO_GRAD: ("tile.zero_grad", "zero_grad"),
    FORWARD_OTHER: ("tile.forward_other", "forward outside layers"),
    LOSS: ("tile.loss", "loss"),
    BACKWARD_OTHER: ("tile.backward_other", "backward outside layers"),
    RECOMPUTED_OTHER: ("tile.recomputed_other", "recomputed outside layers"),
    CLIPPING: ("tile.clipping", "gradient clipping"),
    SCALER: ("tile.scaler", "gradient scaler"),
    OPTIMIZER: ("tile.optimizer", "optimizer"),
    SCHEDULER: ("tile.scheduler", "scheduler"),
    EVALUATION: ("tile.evaluation", "evaluation"),
    CHECKPOINT: ("tile.checkpoint", "checkpoint"),
    DOCTOR: ("tile.doctor", "the doctor itself"),
    REST: ("tile.rest", "rest"),
}
"""Signal and name of everything that is neither a layer nor a parameter group."""

LAYER_SIGNALS = ("time.forward", "time.backward", "time.recomputed")


@dataclass(frozen=True, slots=True)
class Tiles:
    """One step cut into tiles, in whole nanoseconds: their sum is the span, exactly.

    Args:
        span: from the beginning of the step to its collection.
        forward: own time of layers by number, without that of modules inside.
        backward: likewise for the backward pass.
        recomputed: likewise for forward passes that a checkpoint repeats during backward.
        groups: time inside ``optimizer.step()`` by number of the parameter group.
        rest: what belongs to no layer and no group, by name.
    """

    span: int
    forward: Mapping[int, int]
    backward: Mapping[int, int]
    rest: Mapping[str, int]
    recomputed: Mapping[int, int] = field(default_factory=dict)
    groups: Mapping[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class Stamps:
    """The stamps of one step, in the order in which they were made."""

    times: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    running: list[tuple[Any, int]] = field(default_factory=list)
    """Modules that run now, each with the label it interrupted."""
    parts: list[int] = field(default_factory=list)
    """What the parts that run now interrupted."""
    roots: list[bool] = field(default_factory=list)
    open: bool = True

    def stamp(self, label: int) -> None:
        """What runs from now on belongs to `label`."""
        if self.open:
            self.times.append(perf_counter_ns())
            self.labels.append(label)

    def stamp_since(self, label: int, nanoseconds: int) -> None:
        """What ran for the last so many nanoseconds belonged to `label`, as far as nothing was stamped meanwhile."""
        if self.open:
            self.times.append(max(perf_counter_ns() - nanoseconds, self.times[-1]))
            self.labels.append(label)

    @property
    def label(self) -> int:
        """What runs now."""
        return self.labels[-1] if self.labels else REST

    def rename(self, old: int, new: int) -> None:
        """What was labelled `old` so far is `new`."""
        self.labels = [new if label == old else label for label in self.labels]

    def end(self) -> None:
        """The step is over; later stamps, of a graph that is kept and run again, do nothing."""
        self.stamp(REST)
        self.open = False

    def tiles(self) -> Tiles:
        return tiles_of(self.times, self.labels)


def tiles_of(times: list[int], labels: list[int]) -> Tiles:
    """Add up the intervals between stamps by label; the last stamp only ends the last interval."""
    totals: dict[int, int] = {}
    for label, begin, end in zip(labels, times, times[1:], strict=False):
        totals[label] = totals.get(label, 0) + end - begin
    layers: tuple[dict[int, int], ...] = ({}, {}, {})
    for label, total in totals.items():
        if label >= 0:
            layers[label % 3][label // 3] = total
    return Tiles(
        span=times[-1] - times[0] if times else 0,
        forward=layers[FORWARD],
        backward=layers[BACKWARD],
        recomputed=layers[RECOMPUTED],
        groups={FIRST_GROUP - label: total for label, total in totals.items() if label <= FIRST_GROUP},
        rest={name: totals[label] for label, (_, name) in NAMED.items() if label in totals},
    )


def signals_of(tiles: Tiles, layers: int, groups: int) -> dict[str, float | list[float]]:
    """Seconds by part of the loop, by layer and by parameter group; NaN for a layer that took no part."""
    found: dict[str, float | list[float]] = {"tile.span": tiles.span / NANOSECONDS}
    for signal, name in NAMED.values():
        found[signal] = tiles.rest.get(name, 0) / NANOSECONDS
    passes = zip(LAYER_SIGNALS, (tiles.forward, tiles.backward, tiles.recomputed), strict=True)
    found.update((signal, _seconds(times, layers)) for signal, times in passes if times)
    if tiles.groups:
        found["time.optimizer"] = _seconds(tiles.groups, groups)
    return found


def _seconds(times: Mapping[int, int], size: int) -> list[float]:
    return [times[number] / NANOSECONDS if number in times else NAN for number in range(size)]


def signals_of_many(steps: Sequence[Stamps], layers: int, groups: int) -> Iterator[dict[str, Values]]:
    """What `signals_of` says of each of these steps, as arrays.

    Steps whose stamps have the same labels, as those of a loop mostly do, are added up together: that costs a tenth.
    """
    for labels, alike in groupby(steps, key=lambda stamps: stamps.labels):
        yield from _signals_alike(np.array([stamps.times for stamps in alike]), labels, layers, groups)


def _signals_alike(times: NDArray[np.int64], labels: Sequence[int], layers: int, groups: int) -> Iterator[dict[str, Values]]:
    """The signals of steps with the same labels; `times` is (steps, stamps)."""
    present = sorted(set(labels[:-1]))
    column = {label: number for number, label in enumerate(present)}
    belongs = np.zeros((len(labels) - 1, len(present)), dtype=np.int64)
    belongs[np.arange(len(labels) - 1), [column[label] for label in labels[:-1]]] = 1
    seconds = (np.diff(times, axis=1) @ belongs / NANOSECONDS).astype(np.float32)
    table: dict[str, NDArray[np.float32]] = {"tile.span": ((times[:, -1:] - times[:, :1]) / NANOSECONDS).astype(np.float32)}
    nothing = np.zeros((len(times), 1), dtype=np.float32)
    for label, (signal, _) in NAMED.items():
        table[signal] = seconds[:, column[label], None] if label in column else nothing
    for kind, signal in enumerate(LAYER_SIGNALS):
        numbers = {label // 3: column[label] for label in present if label >= 0 and label % 3 == kind}
        if numbers:
            table[signal] = _spread(seconds, numbers, layers)
    stepped = {FIRST_GROUP - label: column[label] for label in present if label <= FIRST_GROUP}
    if stepped:
        table["time.optimizer"] = _spread(seconds, stepped, groups)
    for row in range(len(times)):
        yield {signal: values[row] for signal, values in table.items()}


def _spread(seconds: NDArray[np.float32], columns: Mapping[int, int], size: int) -> NDArray[np.float32]:
    """(steps, size) with the columns of `seconds` where they belong, NaN elsewhere; what is numbered beyond is left out."""
    found = np.full((len(seconds), size), NAN, dtype=np.float32)
    for number, column in columns.items():
        if number < size:
            found[:, number] = seconds[:, column]
    return found
