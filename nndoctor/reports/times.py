"""Where the time of a recorded run went: by layer, by part of the loop, by iteration, over the whole experiment.

Everything is taken from the record, so it can be asked of running, finished and killed runs, on a machine without torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nndoctor.record import RecordReader
from nndoctor.signals import Frame, Targets

DOCTOR = "the doctor itself"
PARTS: Mapping[str, str] = {
    "tile.data_wait": "data wait",
    "tile.prepare": "batch preparation",
    "tile.to_device": "host to device",
    "tile.zero_grad": "zero_grad",
    "tile.forward_other": "forward outside layers",
    "tile.loss": "loss",
    "tile.backward_other": "backward outside layers",
    "tile.recomputed_other": "recomputed outside layers",
    "tile.clipping": "gradient clipping",
    "tile.scaler": "gradient scaler",
    "tile.optimizer": "optimizer",
    "tile.scheduler": "scheduler",
    "tile.evaluation": "evaluation",
    "tile.checkpoint": "checkpoint",
    "tile.doctor": DOCTOR,
    "tile.rest": "rest",
}
PASSES: Mapping[str, str] = {"time.forward": "forward", "time.backward": "backward", "time.recomputed": "recomputed"}
OPTIMIZER = "time.optimizer"
SPAN = "tile.span"
SKIPPED = 20
"""Iterations at the start that are left out where there are enough: allocators, caches and workers warm up in them."""

FRACTIONS = (0.25, 0.5, 0.75, 1.0)

Phase: TypeAlias = Literal["forward", "backward", "recomputed", "optimizer", "part"]
Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tile:
    """Some seconds of one step, with exactly one label.

    Args:
        name: of a layer, of a parameter group, or of a part of the loop.
        kind: the class of a layer, ``group`` or ``part``.
    """

    name: str
    kind: str
    phase: Phase
    seconds: float


@dataclass(frozen=True, slots=True)
class Step:
    """One sampled step cut into tiles; their sum is `span`.

    The doctor measures on sampled steps and hardly works on all others, so shares are of the step without it.

    Args:
        ended: wall clock, seconds since the epoch.
        seconds: the whole step, of which the tiles cover `span`.
    """

    step: int
    ended: float
    epoch: float | None
    seconds: float
    span: float
    tiles: tuple[Tile, ...]

    @property
    def doctor(self) -> float:
        """Seconds that the doctor itself took."""
        return sum(tile.seconds for tile in self.tiles if tile.phase == "part" and tile.name == DOCTOR)

    @property
    def work(self) -> float:
        """Seconds of the step without the doctor: what an unsampled step would have taken."""
        return self.span - self.doctor

    def share(self, tile: Tile) -> float:
        """The share of `tile` in the step without the doctor; NaN for the doctor's own."""
        return math.nan if (tile.name == DOCTOR and tile.phase == "part") or self.work <= 0 else tile.seconds / self.work


@dataclass(frozen=True, slots=True)
class Iteration:
    """One optimizer step, sampled or not, in seconds; NaN where nothing was measured (the first step has no beginning).

    Args:
        training: the step without waiting for data, evaluation and checkpoints.
    """

    step: int
    epoch: float | None
    ended: float
    seconds: float
    data: float
    training: float
    test: float
    checkpoint: float


@dataclass(frozen=True, slots=True)
class Layer:
    """Mean seconds per sampled step of one layer, and its share of the step."""

    name: str
    kind: str
    forward: float
    backward: float
    recomputed: float
    share: float

    @property
    def seconds(self) -> float:
        return self.forward + self.backward + self.recomputed


@dataclass(frozen=True, slots=True)
class Part:
    """Mean seconds per sampled step of a parameter group or a part of the loop, and its share of the step."""

    name: str
    phase: Phase
    seconds: float
    share: float


@dataclass(frozen=True, slots=True)
class Beside:
    """One layer or part of the loop in several runs: mean seconds per sampled step in each, NaN where it has none."""

    name: str
    is_layer: bool
    seconds: tuple[float, ...]

    @property
    def spread(self) -> float:
        """How much longer the slowest takes than the fastest (s)."""
        known = [value for value in self.seconds if math.isfinite(value)]
        return max(known) - min(known) if known else math.nan


@dataclass(frozen=True, slots=True)
class Shares:
    """What of the step goes into what; all are shares of the step without the doctor.

    Args:
        doctor: its work on sampled steps, as a share of them with it.
        covered: how much of the wall time of the sampled steps the tiles cover.
        named: everything except what is only known as the rest.
        layers: work inside of layers.
    """

    forward: float
    backward: float
    optimizer: float
    loss: float
    data: float
    evaluation: float
    doctor: float
    layers: float
    named: float
    covered: float


@dataclass(frozen=True, slots=True)
class Experiment:
    """The first part of a run in one line.

    Args:
        fraction: of the run's iterations.
        skipped: iterations at the start that are left out.
        computed: iterations that the line is about.
        overall: wall clock from the first to the last of them; data, training, test and checkpoint are parts of it.
        missing: what none of these covers.
    """

    fraction: float
    skipped: int
    iterations: int
    computed: int
    epochs: float | None
    overall: float
    data: float
    training: float
    test: float
    checkpoint: float
    missing: float


@dataclass(frozen=True, slots=True)
class Times:
    """All that the record of a run says about time.

    Args:
        steps: the sampled steps in order.
        iterations: every step in order.
        facts: what the record says about run and machine.
    """

    name: str
    started: float
    steps: tuple[Step, ...]
    iterations: tuple[Iteration, ...]
    facts: Mapping[str, Any]

    def after(self, skipped: int) -> tuple[Step, ...]:
        """The sampled steps without the first `skipped` iterations; all of them where that would leave none."""
        return tuple(step for step in self.steps if step.step > skipped) or self.steps


def read_times(reader: RecordReader) -> Times:
    """The times in a record. Raises RecordError if it cannot be read."""
    facts, targets = reader.facts, reader.targets
    steps: list[Step] = []
    iterations: dict[int, Iteration] = {}
    for frame in reader.frames():
        if "step.time" in frame.values or frame.step not in iterations:
            iterations[frame.step] = _iteration(frame)
        if SPAN in frame.values:
            steps.append(_step(frame, targets))
    return Times(facts.name, facts.started, tuple(steps), tuple(iterations[n] for n in sorted(iterations)), facts.facts)


def _value(frame: Frame, name: str, otherwise: float = math.nan) -> float:
    values = frame.values.get(name)
    return float(values[0]) if values is not None and len(values) else otherwise


def _iteration(frame: Frame) -> Iteration:
    seconds = _value(frame, "step.time")
    data = _value(frame, "step.data_wait_fraction", 0.0) * seconds
    test, checkpoint = _value(frame, "step.evaluation", 0.0), _value(frame, "step.checkpoint", 0.0)
    training = max(0.0, seconds - data - test - checkpoint) if math.isfinite(seconds) else math.nan
    return Iteration(frame.step, frame.epoch, frame.time, seconds, data, training, test, checkpoint)


def _step(frame: Frame, targets: Targets) -> Step:
    return Step(frame.step, frame.time, frame.epoch, _value(frame, "step.time"), _value(frame, SPAN), tuple(_tiles(frame, targets)))


def _tiles(frame: Frame, targets: Targets) -> Iterator[Tile]:
    """The tiles of a frame that hold any time, layers first."""
    for signal, phase in PASSES.items():
        for number, seconds in enumerate(frame.values.get(signal, ())):
            if seconds > 0 and number < len(targets.layers):
                yield Tile(targets.layers[number], targets.layer_kinds[number], phase, float(seconds))  # type: ignore[arg-type]
    for number, seconds in enumerate(frame.values.get(OPTIMIZER, ())):
        if seconds > 0 and number < len(targets.groups):
            yield Tile(targets.groups[number], "group", "optimizer", float(seconds))
    for signal, name in PARTS.items():
        seconds = _value(frame, signal, 0.0)
        if seconds > 0:
            yield Tile(name, "part", "part", seconds)


def layers_of(steps: Sequence[Step]) -> list[Layer]:
    """Mean times per step of every layer that had any, the largest first. Means add up, medians do not."""
    whole = sum(step.work for step in steps)
    sums: dict[str, dict[str, float]] = {}
    kinds: dict[str, str] = {}
    for tile in _all_tiles(steps):
        if tile.phase in PASSES.values():
            sums.setdefault(tile.name, dict.fromkeys(PASSES.values(), 0.0))[tile.phase] += tile.seconds
            kinds[tile.name] = tile.kind
    count = len(steps) or 1
    rows = [
        Layer(
            name,
            kinds[name],
            passes["forward"] / count,
            passes["backward"] / count,
            passes["recomputed"] / count,
            share=sum(passes.values()) / whole,
        )
        for name, passes in sums.items()
    ]
    return sorted(rows, key=lambda row: -row.seconds)


def parts_of(steps: Sequence[Step]) -> list[Part]:
    """Mean times per step of parameter groups and of what belongs to no layer, the largest first."""
    whole = sum(step.work for step in steps)
    sums: dict[tuple[str, Phase], float] = {}
    for tile in _all_tiles(steps):
        if tile.phase not in PASSES.values():
            sums[tile.name, tile.phase] = sums.get((tile.name, tile.phase), 0.0) + tile.seconds
    rows = [
        Part(name, phase, seconds / len(steps), math.nan if name == DOCTOR else seconds / whole)
        for (name, phase), seconds in sums.items()
    ]
    return sorted(rows, key=lambda row: -row.seconds)


def shares_of(steps: Sequence[Step]) -> Shares:
    """What of the time goes into what; NaN without any sampled step."""
    work = sum(step.work for step in steps) or math.nan
    sums: dict[str, float] = {}
    for tile in _all_tiles(steps):
        for name in (tile.phase, *((tile.name,) if tile.phase == "part" else ())):
            sums[name] = sums.get(name, 0.0) + tile.seconds

    def share(*names: str) -> float:
        return sum(sums.get(name, 0.0) for name in names) / work

    whole = sum(step.seconds for step in steps if math.isfinite(step.seconds))
    tiled = sum(step.span for step in steps if math.isfinite(step.seconds))
    return Shares(
        forward=share("forward", "forward outside layers"),
        backward=share("backward", "recomputed", "backward outside layers", "recomputed outside layers"),
        optimizer=share("optimizer"),
        loss=share("loss"),
        data=share("data wait", "batch preparation", "host to device"),
        evaluation=share("evaluation"),
        doctor=sums.get(DOCTOR, 0.0) / (sum(step.span for step in steps) or math.nan),
        layers=share("forward", "backward", "recomputed"),
        named=1 - share("rest"),
        covered=tiled / whole if whole > 0 else math.nan,
    )


def _all_tiles(steps: Iterable[Step]) -> Iterator[Tile]:
    for step in steps:
        yield from step.tiles


def devices_of(runs: Sequence[Times], skipped: int = SKIPPED) -> list[Beside]:
    """Mean times per step of every layer and part in several runs: the processes of one training, each on a device of its own.

    Layers first, those with the largest mean first, then parameter groups and parts of the loop. The doctor's own work is left out.
    """
    tables: dict[tuple[bool, str], list[float]] = {}
    for number, times in enumerate(runs):
        steps = times.after(skipped)
        rows = [(True, layer.name, layer.seconds) for layer in layers_of(steps)]
        rows += [(False, part.name, part.seconds) for part in parts_of(steps) if part.name != DOCTOR]
        for is_layer, name, seconds in rows:
            tables.setdefault((is_layer, name), [math.nan] * len(runs))[number] = seconds
    found = [Beside(name, is_layer, tuple(seconds)) for (is_layer, name), seconds in tables.items()]
    return sorted(found, key=lambda row: (not row.is_layer, -_sum(row.seconds)))


def device_names(runs: Sequence[Times]) -> list[str]:
    """What tells the runs apart: the device of each, or else its name."""
    devices = [str(times.facts.get("device", "")) for times in runs]
    return devices if len(set(devices)) == len(runs) and all(devices) else [times.name for times in runs]


def experiment_of(times: Times, skipped: int = SKIPPED) -> list[Experiment]:
    """A line for each quarter of the run, cumulative, with all iterations and again without the first `skipped`."""
    lines = []
    for skip in (0, skipped) if 0 < skipped < len(times.iterations) else (0,):
        for fraction in FRACTIONS:
            last = max(1, round(fraction * len(times.iterations)))
            if last > skip:
                lines.append(_experiment(times, fraction, skip, last))
    return lines


def _experiment(times: Times, fraction: float, skip: int, last: int) -> Experiment:
    rows = times.iterations[skip:last]
    began = times.iterations[skip - 1].ended if skip else times.started
    overall = rows[-1].ended - began
    sums = {name: _sum(getattr(row, name) for row in rows) for name in ("data", "training", "test", "checkpoint")}
    if last == len(times.iterations):
        # an evaluation after the last step belongs to no step
        late = times.facts.get("pauses_since_step") or {}
        sums["test"] += float(late.get("evaluation", 0.0))
        sums["checkpoint"] += float(late.get("checkpoint", 0.0))
        overall += float(late.get("evaluation", 0.0)) + float(late.get("checkpoint", 0.0))
    return Experiment(
        fraction=fraction,
        skipped=skip,
        iterations=len(times.iterations),
        computed=len(rows),
        epochs=rows[-1].epoch,
        overall=overall,
        missing=max(0.0, overall - sum(sums.values())),
        **sums,
    )


def _sum(values: Iterable[float]) -> float:
    return float(sum(value for value in values if math.isfinite(value)))
