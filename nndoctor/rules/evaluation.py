"""Expressions at work: a graph of cells over a run's history, each computed at most once per frame.

Equal expressions share a cell, whatever rules they come from; a cell is computed again only when a
signal behind it has a new sample. Functions that remember (`initial`, `ever`, `held`, windows over
computed values) are fed on every frame that concerns them, whether a rule asks or not, so that
verdicts depend on the sequence of frames alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from nndoctor.history import History, Series
from nndoctor.rules import functions
from nndoctor.rules.expression import REDUCERS, Expression, Levels
from nndoctor.rules.functions import UNKNOWN, Array, Value
from nndoctor.signals import Axis, Frame, Targets

_FOR_CURVES = 10  # frames between samples of a record that is only looked at
_CATCH_UP = 128  # samples after which a remembering cell that nobody asks is fed, long before the ring forgets them


_LARGEST_COMPARED = 4096  # values of a sample that are held against the last one


class Source:
    """Something that cells depend on: in which frame it last had a sample, and in which that was another value."""

    __slots__ = ("_value", "moved", "name", "stamp")

    def __init__(self, name: str) -> None:
        self.name, self.stamp, self.moved = name, 0, 0
        self._value = b""

    def touch(self, now: int) -> None:
        """It has changed."""
        self.stamp = self.moved = now

    def sampled(self, now: int, values: NDArray[np.float32]) -> None:
        """It was measured; most of what tells of a healthy loop is the same every time."""
        self.stamp = now
        if values.size > _LARGEST_COMPARED:
            self.moved = now
            return
        fresh = values.tobytes()
        if fresh != self._value:
            self._value = fresh
            self.moved = now


class Cell:
    """One value, computed at most once per frame and only if a source of it changed."""

    __slots__ = ("_compute", "_computed", "_graph", "_seen", "_value", "axis", "sources")

    def __init__(self, graph: Graph, axis: Axis, sources: Iterable[Source], compute: Callable[[], Value]) -> None:
        self._graph, self.axis, self._compute = graph, axis, compute
        self.sources = tuple(dict.fromkeys(sources))
        self._seen = self._computed = -1
        self._value: Value = UNKNOWN

    def get(self) -> Value:
        now = self._graph.now
        if self._seen != now:
            self._seen = now
            if self._computed < 0 or self.moved_since(self._computed):
                self._computed = now
                self._value = self._compute()
        return self._value

    def moved_since(self, frame: int) -> bool:
        """Whether anything behind it has another value than then."""
        # loops, not any(): these are asked hundreds of times per frame
        for source in self.sources:  # noqa: SIM110
            if source.moved > frame:
                return True
        return False

    def sampled_since(self, frame: int) -> bool:
        """Whether anything behind it was measured since then, be it the same."""
        for source in self.sources:  # noqa: SIM110
            if source.stamp > frame:
                return True
        return False

    def forget(self) -> None:
        """Compute anew when next asked, as after the targets grew."""
        self._seen = self._computed = -1


class Graph:
    """The cells over one history.

    Args:
        history: where signals come from; `advance` tells the graph of each frame appended to it.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.now = 0
        self._cells: dict[str, Cell] = {}
        self._own: list[Cell] = []
        self._sources: dict[str, Source] = {}
        self._samples: dict[str, Source] = {}
        self._feeds: list[_Feed] = []
        self._derived: dict[str, _Derived] = {}
        self._clock = (self.source("step"), self.source("epoch"))
        self._order: NDArray[np.int64] = np.empty(0, np.int64)
        self._owners: NDArray[np.int64] = np.empty(0, np.int64)
        self._map_targets()

    def source(self, name: str) -> Source:
        """The latest value of a signal."""
        return self._sources.setdefault(name, Source(name))

    def samples(self, name: str) -> Source:
        """All samples of a signal: another thing as soon as there is one more of them."""
        return self._samples.setdefault(name, Source(name))

    def advance(self, frame: Frame) -> None:
        """Note what `frame`, already in the history, brought; feed what remembers."""
        self.now += 1
        sources, samples = self._sources, self._samples
        for name, values in frame.values.items():
            source = sources.get(name)
            if source is not None:
                source.sampled(self.now, values)
            source = samples.get(name)
            if source is not None:
                source.touch(self.now)
        for clock in self._clock:
            clock.touch(self.now)
        for feed in self._feeds:
            feed.feed(self.now)

    def grow(self) -> None:
        """Take on the targets that the history has grown by."""
        self._map_targets()
        for feed in self._feeds:
            feed.grow()
        for cell in (*self._cells.values(), *self._own):
            cell.forget()

    def cell(self, expression: Expression, frozen: Mapping[str, Cell] | None = None) -> Cell:
        """The cell of `expression`; parts whose key is in `frozen` are taken from there."""
        if frozen and expression.key in frozen:
            return frozen[expression.key]
        shared = not frozen or not _touches(expression, frozen)
        if shared and expression.key in self._cells:
            return self._cells[expression.key]
        cell = self._build(expression, frozen if not shared else None)
        if shared:
            self._cells[expression.key] = cell
        elif cell not in self._own:
            self._own.append(cell)
        return cell

    def series(self, expression: Expression) -> tuple[Series, Source]:
        """The samples of `expression`: a signal's own, or one that is computed and kept from now on."""
        while expression.operation == "record":
            expression = expression.arguments[0]
        if expression.operation == "signal":
            return self.history.series(expression.name), self.samples(expression.name)
        derived = self._derived.get(expression.key)
        if derived is None:
            series = Series(self.history.targets.size(expression.axis), tail=self.history.tail_length(expression.axis))
            derived = self._derive(expression, series)
        derived.every = 1  # a function over time rests on it: each sample counts
        return derived.series, derived.source

    def keep(self, name: str, expression: Expression) -> None:
        """Keep `expression` in the history under `name`, a signal that its catalogue knows.

        Every tenth sample of it, unless a function over time needs them all: enough for a curve.
        """
        if expression.key not in self._derived and expression.operation not in ("signal", "record"):
            self._derive(expression, self.history.series(name)).every = _FOR_CURVES

    def curve(self, expression: Expression) -> Series | None:
        """The samples of `expression` as far as they are kept anyway."""
        while expression.operation == "record":
            expression = expression.arguments[0]
        if expression.operation == "signal":
            return self.history.series(expression.name)
        derived = self._derived.get(expression.key)
        return None if derived is None else derived.series

    def _derive(self, expression: Expression, series: Series) -> _Derived:
        derived = _Derived(self, self.cell(expression), series, Source(expression.key))
        self._derived[expression.key] = derived
        self._feeds.append(derived)
        return derived

    def _map_targets(self) -> None:
        targets = self.history.targets
        self._order = depth_order(targets)
        self._owners = np.array(targets.param_layers, np.int64)
        if len(self._owners) < len(targets.params):
            self._owners = np.append(self._owners, np.full(len(targets.params) - len(self._owners), -1))

    def _build(self, e: Expression, frozen: Mapping[str, Cell] | None) -> Cell:
        if e.operation == "record":
            return self.cell(e.arguments[0], frozen)
        if e.operation == "signal":
            return self._signal(e)
        if e.operation in ("number", "levels", "clock"):
            return self._leaf(e)
        if e.operation in ("window", "initial", "held"):
            return self._over_time(e)
        parts = [self.cell(argument, frozen) for argument in e.arguments]
        sources = [source for part in parts for source in part.sources]
        if e.operation == "ever":
            return self._ever(e, parts[0])
        if e.operation in ("and", "or"):
            return Cell(self, e.axis, sources, self._logic(e, parts, eager=frozen is not None))
        return Cell(self, e.axis, sources, self._elementwise(e, parts))

    def _signal(self, e: Expression) -> Cell:
        series = self.history.series(e.name)
        if e.axis == "run":
            return Cell(self, e.axis, [self.source(e.name)], series.last)
        return Cell(self, e.axis, [self.source(e.name)], lambda: series.latest().astype(np.float64))

    def _leaf(self, e: Expression) -> Cell:
        history = self.history
        if e.operation == "number":
            return Cell(self, "run", [], lambda: e.number)
        if e.name == "step" and e.operation == "clock":
            return Cell(self, "run", [self._clock[0]], lambda: float(history.step))
        if e.operation == "clock":
            return Cell(self, "run", [self._clock[1]], lambda: UNKNOWN if history.epoch is None else history.epoch)
        levels = e.levels
        assert levels is not None
        return Cell(self, e.axis, [], lambda: levels_of(levels, e.axis, history.targets))

    def _over_time(self, e: Expression) -> Cell:
        series, source = self.series(e.arguments[0])
        steps = int(e.number)
        run = e.axis == "run"
        if e.operation == "initial":
            first = _Initial(series, source, steps, Source(e.key))
            self._feeds.append(first)
            read: Callable[[], Array] = first.value
            source = first.source
        elif e.operation == "window" and e.name == "ema":
            memory = _Ema(series, steps)
            self._feeds.append(memory)
            read = memory.value
        elif e.operation == "held":
            read = lambda: _held(series, steps)  # noqa: E731
        else:
            name = "count_true" if e.name == "count" and e.arguments[0].condition else e.name
            read = lambda: functions.windowed(name, series, steps, e.fraction)  # noqa: E731
        return Cell(self, e.axis, [source], (lambda: float(read()[0])) if run else read)

    def _ever(self, e: Expression, part: Cell) -> Cell:
        memory = _Ever(self, part, Source(e.key))
        self._feeds.append(memory)
        return Cell(self, e.axis, [memory.source], memory.value)

    def _logic(self, e: Expression, parts: list[Cell], eager: bool) -> Callable[[], Value]:
        """Logic that stops at the part of the run which decides it; a baseline that stands still is always asked."""
        combine, decides = (functions.and_, 0.0) if e.operation == "and" else (functions.or_, 1.0)
        if eager:
            return lambda: combine(*[part.get() for part in parts])
        of_run = [part for part in parts if part.axis == "run"]
        others = [part for part in parts if part.axis != "run"]
        history = self.history

        def compute() -> Value:
            values: list[Value] = []
            for part in of_run:
                value = part.get()
                if value == decides:
                    return decides if not others else np.full(history.targets.size(e.axis), decides)
                values.append(value)
            result: Value = combine(*values, *[part.get() for part in others])
            return result

        return compute

    def _elementwise(self, e: Expression, parts: list[Cell]) -> Callable[[], Value]:
        if e.operation in ("arithmetic", "compare"):
            table = functions.ARITHMETIC if e.operation == "arithmetic" else functions.COMPARISONS
            function, left, right = table[e.name], parts[0].get, parts[1].get
            if e.arguments[1].operation == "number":
                number = e.arguments[1].number
                return lambda: function(left(), number)
            return lambda: function(left(), right())
        if e.operation in ("over", "depth_slope", "first_layer", "last_layer", "of_layer", "to_param"):
            return self._across_targets(e, parts[0])
        plain: dict[str, Callable[..., Value]] = {
            "not": functions.not_,
            "negate": functions.negate,
            "isfinite": functions.isfinite,
            "known": functions.known,
            "default": functions.default,
        }
        chosen = functions.SCALARS[e.name][1] if e.operation == "scalar" else plain[e.operation]
        if len(parts) == 1:
            only = parts[0].get
            return lambda: chosen(only())
        return lambda: chosen(*[part.get() for part in parts])

    def _across_targets(self, e: Expression, part: Cell) -> Callable[[], Value]:
        def values() -> Array:
            return np.asarray(part.get(), np.float64)

        if e.operation == "over":
            reduce, fraction = functions.REDUCERS[REDUCERS[e.name][0]], e.fraction
            return lambda: reduce(values(), fraction)
        if e.operation == "depth_slope":
            return lambda: functions.depth_slope(values(), self._order)
        if e.operation == "first_layer":
            return lambda: functions.end_of(values(), self._order)
        if e.operation == "last_layer":
            return lambda: functions.end_of(values(), self._order[::-1])
        if e.operation == "of_layer":
            return lambda: functions.largest_per_owner(values(), self._owners, self.history.targets.size("layer"))
        return lambda: np.append(values(), UNKNOWN)[self._owners]  # an owner of -1 reads the unknown at the end


class _Feed:
    """Something that must see every sample."""

    __slots__ = ()

    def feed(self, now: int) -> None:
        raise NotImplementedError

    def grow(self) -> None:
        raise NotImplementedError


class _Derived(_Feed):
    """The samples of a computed value: one for each frame that changed it."""

    __slots__ = ("_cell", "_fed", "_graph", "every", "series", "source")

    def __init__(self, graph: Graph, cell: Cell, series: Series, source: Source) -> None:
        self._graph, self._cell, self.series, self.source = graph, cell, series, source
        self.every, self._fed = 1, -_FOR_CURVES

    def feed(self, now: int) -> None:
        if now - self._fed < self.every or not self._cell.sampled_since(now - self.every):
            return
        value = self._cell.get()
        if isinstance(value, float):
            if value != value:
                return
            values = np.array([value], np.float32)
        else:
            values = value.astype(np.float32)
            if np.isnan(values).all():
                return
        self._fed = now
        self.series.append(self._graph.history.step, values)
        self.source.touch(now)

    def grow(self) -> None:
        self.series.grow(self._graph.history.targets.size(self._cell.axis))


class _Initial(_Feed):
    """Median of the first `samples` samples of each target; unknown until they are there, then for ever the same.

    It has a source of its own, which stands still once all is known: what rests on it alone is not computed again.
    """

    __slots__ = ("_done", "_first", "_have", "_input", "_read", "_series", "_value", "source")

    def __init__(self, series: Series, input: Source, samples: int, source: Source) -> None:
        self._series, self._input, self.source = series, input, source
        self._first = np.full((series.size, samples), UNKNOWN)
        self._have = np.zeros(series.size, np.int64)
        self._read = 0
        self._value = np.full(series.size, UNKNOWN)
        self._done = False

    def feed(self, now: int) -> None:
        if self._done or self._input.stamp != now:
            return
        steps, samples = self._series.since(self._read)
        self._read = self._series.count
        before = self._have.copy()
        wanted = self._first.shape[1]
        for column in range(len(steps)):
            take = np.flatnonzero(~np.isnan(samples[:, column]) & (self._have < wanted))
            self._first[take, self._have[take]] = samples[take, column]
            self._have[take] += 1
        full = (self._have == wanted) & (before < wanted)
        if full.any():
            self._value = self._value.copy()
            self._value[full] = functions.median_of_rows(self._first[full])
            self._done = bool((self._have == wanted).all())
            self.source.touch(now)

    def value(self) -> Array:
        return self._value

    def grow(self) -> None:
        extra = self._series.size - len(self._have)
        self._first = np.concatenate((self._first, np.full((extra, self._first.shape[1]), UNKNOWN)))
        self._have = np.append(self._have, np.zeros(extra, np.int64))
        self._value = np.append(self._value, np.full(extra, UNKNOWN))
        self._done = self._done and extra == 0


class _Ema(_Feed):
    """Exponential mean with a time constant in steps: a sample d steps after the last one weighs 1 - exp(-d / steps)."""

    __slots__ = ("_count", "_first", "_last", "_mean", "_read", "_series", "_steps", "_value")

    def __init__(self, series: Series, steps: int) -> None:
        self._series, self._steps, self._read = series, steps, 0
        self._mean = np.full(series.size, UNKNOWN)
        self._value = np.full(series.size, UNKNOWN)
        self._count = np.zeros(series.size, np.int64)
        self._first = np.zeros(series.size, np.int64)
        self._last = np.zeros(series.size, np.int64)

    def feed(self, now: int) -> None:
        if self._series.count - self._read >= _CATCH_UP:
            self.value()

    def value(self) -> Array:
        if self._read == self._series.count:
            return self._value
        steps, samples = self._series.since(self._read)
        self._read = self._series.count
        for column, step in enumerate(steps.tolist()):
            self._add(step, samples[:, column])
        need = min(functions.LEAST_SAMPLES, self._steps)
        known = (self._count >= need) & (2 * (self._last - self._first) >= self._steps)
        self._value = np.where(known, self._mean, UNKNOWN)
        return self._value

    def _add(self, step: int, sample: NDArray[np.float32]) -> None:
        measured = ~np.isnan(sample)
        first = measured & (self._count == 0)
        weight = -np.expm1((self._last - step) / self._steps)
        with np.errstate(invalid="ignore"):
            moved = np.where(np.isfinite(self._mean), self._mean + weight * (sample - self._mean), sample)
        self._mean = np.where(first, sample, np.where(measured, moved, self._mean))
        self._first[first] = step
        self._last[measured] = step
        self._count += measured

    def grow(self) -> None:
        extra = self._series.size - len(self._count)
        self._mean, self._value = (np.append(a, np.full(extra, UNKNOWN)) for a in (self._mean, self._value))
        self._count, self._first, self._last = (
            np.append(a, np.zeros(extra, np.int64)) for a in (self._count, self._first, self._last)
        )


class _Ever(_Feed):
    """True from the first time on that the condition was true."""

    __slots__ = ("_done", "_graph", "_part", "_value", "source")

    def __init__(self, graph: Graph, part: Cell, source: Source) -> None:
        self._graph, self._part, self.source = graph, part, source
        self._value = np.empty(0)
        self._done = False  # true for the run: nothing can change it any more
        self.grow()

    def feed(self, now: int) -> None:
        if self._done or not self._part.moved_since(now - 1):
            return
        fresh = self._part.get()
        if isinstance(fresh, float):
            if fresh != fresh or fresh == self._value[0]:
                return
            self._done = fresh == 1.0
        value = np.fmax(self._value, fresh)
        if not np.array_equal(value, self._value, equal_nan=True):
            self._value = value
            self.source.touch(now)

    def value(self) -> Value:
        return float(self._value[0]) if self._part.axis == "run" else self._value

    def grow(self) -> None:
        missing = self._graph.history.targets.size(self._part.axis) - len(self._value)
        self._value = np.append(self._value, np.full(missing, UNKNOWN))


def _held(series: Series, steps: int) -> Array:
    """True where every sample of the window was true, false where one was not, unknown while too few are there."""
    lowest = functions.windowed("min", series, steps)
    window = series.window(steps)
    with_false = (window.low == 0.0).any(axis=1) if len(window.steps) else np.zeros(series.size, bool)
    return np.where(with_false, 0.0, lowest)


def depth_order(targets: Targets) -> NDArray[np.int64]:
    """Layer indices in the order of execution, those never called last; registration order where nothing is known."""
    depths = np.full(len(targets.layers), -1, np.int64)
    depths[: len(targets.layer_depths)] = targets.layer_depths
    last = np.iinfo(np.int64).max
    return np.argsort(np.where(depths < 0, last, depths), kind="stable")


def levels_of(levels: Levels, axis: Axis, targets: Targets) -> Array:
    """A parameter with exceptions as an array over the targets of `axis`."""
    values = np.full(targets.size(axis), levels.base)
    for patterns, value in levels.exceptions:
        values[matching(patterns, axis, targets)] = value
    return values


def matching(patterns: Iterable[str], axis: Axis, targets: Targets) -> list[int]:
    """Indices of the targets whose name, or whose layer's name, matches one of the patterns."""
    patterns = tuple(patterns)
    found = []
    for index, name in enumerate(targets.names(axis)):
        names = [name]
        if axis == "param" and index < len(targets.param_layers) and targets.param_layers[index] >= 0:
            names.append(targets.layers[targets.param_layers[index]])
        if any(fnmatchcase(n, pattern) for n in names for pattern in patterns):
            found.append(index)
    return found


def _touches(expression: Expression, keys: Mapping[str, Cell]) -> bool:
    if expression.key in keys:
        return True
    if expression.operation in ("window", "initial", "held", "ever"):
        return False
    return any(_touches(argument, keys) for argument in expression.arguments)
