"""What a run has measured so far, in fixed memory: the exact recent past and a decimated whole.

Every signal has a `Series`: its newest samples exactly, layer-major (one row per target), and the
whole run as at most a few hundred buckets of mean, lowest and highest value. When the buckets are
full, neighbours merge in pairs, so a run of ten million steps costs what one of ten thousand does.
Sampling may be irregular: every sample carries its step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndoctor.signals import CATALOGUE, Axis, Catalogue, Frame, Targets, Values

Steps = NDArray[np.int64]

_BATCH = 16  # samples that are staged before they move into the ring
_FOLDED = 64  # samples that are folded into buckets at once
_NAN = float("nan")
_NO_STEPS: Steps = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole run in few columns: the first step of each bucket, and its mean, lowest and highest value.

    `steps` is (k,), the others are (k, targets); NaN where a target was not measured in the bucket.
    """

    steps: Steps
    mean: Values
    low: Values
    high: Values


@dataclass(frozen=True, slots=True)
class Window:
    """The samples of the last steps, oldest first; layer-major, so that each row is one target's series.

    `mean`, `low` and `high` are (targets, k) and the same array, unless the window reaches further back
    than the exact samples do: then each column is a bucket of the decimated run.
    """

    steps: Steps
    mean: Values
    low: Values
    high: Values


class Series:
    """One signal over its targets: exact tail, decimated whole, and the newest value of each target.

    Args:
        size: number of targets.
        tail: exact samples kept.
        buckets: most columns that `whole` returns.
        phase: after how many samples the first are moved into the ring, so that the series of a run take turns.
    """

    __slots__ = (
        "_bucket_steps",
        "_buckets",
        "_filled",
        "_flush_at",
        "_high",
        "_latest",
        "_limit",
        "_low",
        "_mean",
        "_partial",
        "_ring",
        "_ring_steps",
        "_span",
        "_staged",
        "_staged_steps",
        "_start",
        "_stop",
        "_unfolded",
        "count",
        "first_step",
        "last_step",
        "size",
        "tail_length",
    )  # fmt: skip

    def __init__(self, size: int, tail: int = 2048, buckets: int = 600, phase: int = _BATCH) -> None:
        if tail < 4 or buckets < 8:
            raise ValueError(f"expected tail >= 4 and buckets >= 8, got tail={tail} and buckets={buckets}")
        self.size, self.tail_length = size, tail
        self.count = self.first_step = self.last_step = 0
        self._latest: Values = np.full(size, np.nan, np.float32)
        self._filled = 0  # staged samples already carried into _latest
        self._staged: list[Any] = []  # arrays; plain numbers where there is one target, a fifth of the memory
        self._staged_steps: list[int] = []
        self._flush_at = phase
        self._ring: Values = np.empty((size, 0), np.float32)  # (targets, columns); [_start, _stop) are valid
        self._ring_steps = _NO_STEPS
        self._start = self._stop = 0
        self._unfolded = 0  # index of the first ring column that is not in a bucket yet
        self._limit = (buckets - 1) // 2 * 2  # complete buckets; one more may be under way
        self._buckets = 0
        self._span = 1  # samples per complete bucket
        self._bucket_steps = _NO_STEPS
        self._mean = self._low = self._high = np.empty((size, 0), np.float32)
        self._partial: _Partial | None = None

    def append(self, step: int, values: Values) -> None:
        """Add one sample, shape (targets,) or a prefix of it. Costs a list append; `values` must not change later."""
        if not self.count:
            self.first_step = step
        self.count += 1
        self.last_step = step
        if self.size == 1:
            self._staged.append(float(values[0]) if len(values) else _NAN)
        else:
            self._staged.append(values)
        self._staged_steps.append(step)
        if len(self._staged) >= self._flush_at:
            self._flush()

    def grow(self, size: int) -> None:
        """Make room for targets at the end; they are NaN in every earlier sample."""
        if size < self.size:
            raise ValueError(f"targets only grow at the end: expected at least {self.size}, got {size}")
        if size == self.size:
            return
        self._flush()
        self._latest = _more_rows(self._latest, size)
        self._ring = _more_rows(self._ring, size)
        self._mean = _more_rows(self._mean, size)
        if self._span == 1:
            self._low = self._high = self._mean
        else:
            self._low, self._high = _more_rows(self._low, size), _more_rows(self._high, size)
        if self._partial is not None:
            self._partial.grow(size)
        self.size = size

    def latest(self) -> Values:
        """The newest measured value of every target, (targets,); NaN where it was never measured."""
        staged = self._staged
        if self._filled < len(staged):
            newest = staged[-1]
            if self.size == 1:
                known = [value for value in staged[self._filled :] if value == value]
                if known:
                    self._latest[0] = known[-1]
            elif len(newest) == self.size and not np.isnan(newest).any():
                self._latest[:] = newest
            else:
                for values in staged[self._filled :]:
                    np.copyto(self._latest[: len(values)], values, where=~np.isnan(values))
            self._filled = len(staged)
        return self._latest

    def last(self) -> float:
        """The newest measured value of the first target: what a signal of the run is about."""
        if self._filled < len(self._staged):
            newest = self._staged[-1]
            value = newest if self.size == 1 else float(newest[0])
            if value == value:
                return value
        return float(self.latest()[0]) if self.size else float("nan")

    def tail(self, samples: int | None = None) -> tuple[Steps, Values]:
        """The newest exact samples, oldest first: steps (k,) and values (targets, k), views into the ring."""
        self._flush()
        wanted = self.tail_length if samples is None else max(0, min(samples, self.tail_length))
        begin = max(self._start, self._stop - wanted)
        return self._ring_steps[begin : self._stop], self._ring[:, begin : self._stop]

    def window(self, steps: int, at_least: int = 1) -> Window:
        """The samples of the last `steps` steps up to the newest sample, widened to hold `at_least` samples."""
        ring_steps, ring = self.tail()
        begin = int(np.searchsorted(ring_steps, self.last_step - steps, side="right"))
        begin = max(0, min(begin, len(ring_steps) - at_least))
        dropped = len(ring_steps) < self.count and len(ring_steps) > 0
        if dropped and ring_steps[0] > self.last_step - steps + 1:
            whole = self._whole()
            begin = int(np.searchsorted(whole[0], self.last_step - steps, side="right"))
            return Window(whole[0][begin:], whole[1][:, begin:], whole[2][:, begin:], whole[3][:, begin:])
        exact = ring[:, begin:]
        return Window(ring_steps[begin:], exact, exact, exact)

    def whole(self) -> Whole:
        """The whole run in at most `buckets` columns."""
        steps, mean, low, high = self._whole()
        return Whole(steps, mean.T, low.T, high.T)

    def since(self, count: int) -> tuple[Steps, Values]:
        """The samples after the first `count` ones that are still exact: steps (k,), values (targets, k)."""
        return self.tail(self.count - count) if self.count > count else (_NO_STEPS, self._ring[:, :0])

    def _whole(self) -> tuple[Steps, Values, Values, Values]:
        self._flush()
        self._fold()
        n, partial = self._buckets, self._partial
        arrays = (self._mean[:, :n], self._low[:, :n], self._high[:, :n])
        steps = self._bucket_steps[:n]
        if partial is None:
            return (steps.copy(), arrays[0].copy(), arrays[1].copy(), arrays[2].copy())
        last = (partial.mean(), partial.low, partial.high)
        mean, low, high = (np.concatenate((a, b[:, None]), axis=1) for a, b in zip(arrays, last, strict=True))
        return np.append(steps, partial.step), mean, low, high

    def _flush(self) -> None:
        """Move what is staged into the ring."""
        k = len(self._staged)
        if not k:
            return
        self.latest()
        if self._stop + k > self._ring.shape[1]:
            self._make_room(k)
        block = self._ring[:, self._stop : self._stop + k]
        if self.size == 1:
            block[0] = self._staged
        elif k == 1 and len(self._staged[0]) == self.size:
            block[:, 0] = self._staged[0]
        elif all(len(values) == self.size for values in self._staged):
            block[:] = np.array(self._staged, np.float32).T
        else:
            block[:] = np.nan
            for column, values in enumerate(self._staged):
                block[: len(values), column] = values
        self._ring_steps[self._stop : self._stop + k] = self._staged_steps
        self._stop += k
        self._staged, self._staged_steps, self._filled, self._flush_at = [], [], 0, _BATCH
        # as long as the ring holds the whole run, buckets would only repeat it
        if self._buckets and self._stop - self._unfolded >= _FOLDED:
            self._fold()

    def _make_room(self, k: int) -> None:
        """Double the ring until it is half as long again as the tail; from then on, shift the tail to its start."""
        width = self._ring.shape[1]
        final = self.tail_length + max(self.tail_length // 2, _BATCH)
        if width < final:
            wider = min(final, max(2 * width, self._stop + k, _BATCH))
            ring = np.empty((self.size, wider), np.float32)
            ring[:, : self._stop] = self._ring[:, : self._stop]
            steps = np.empty(wider, np.int64)
            steps[: self._stop] = self._ring_steps[: self._stop]
            self._ring, self._ring_steps = ring, steps
            if self._stop + k <= wider:
                return
        self._fold()
        keep = min(self.tail_length, self._stop)
        begin = self._stop - keep
        # copy(): source and destination may overlap
        self._ring[:, :keep] = self._ring[:, begin : self._stop].copy()
        self._ring_steps[:keep] = self._ring_steps[begin : self._stop].copy()
        self._start, self._stop, self._unfolded = 0, keep, keep

    def _fold(self) -> None:
        """Fold the ring columns that are in no bucket yet into buckets."""
        while self._unfolded < self._stop:
            left = self._stop - self._unfolded
            if self._partial is None and left >= self._span:
                self._fold_complete(left // self._span)
                continue
            if self._partial is None:
                self._partial = _Partial(self.size, int(self._ring_steps[self._unfolded]))
            take = min(left, self._span - self._partial.samples)
            self._partial.add(self._ring[:, self._unfolded : self._unfolded + take])
            self._unfolded += take
            if self._partial.samples == self._span:
                done, self._partial = self._partial, None
                self._store(np.array([done.step]), done.mean()[:, None], done.low[:, None], done.high[:, None])

    def _fold_complete(self, n: int) -> None:
        n = min(n, self._limit - self._buckets)
        begin, end = self._unfolded, self._unfolded + n * self._span
        block = self._ring[:, begin:end]
        steps = self._ring_steps[begin : end : self._span]
        self._unfolded = end
        if self._span == 1:
            self._store(steps, block, block, block)
            return
        cube = block.reshape(self.size, n, self._span)
        low = high = block
        for _ in range(self._span.bit_length() - 1):  # the span is a power of two: halving is 10x faster than reduce
            low = np.fmin(low[:, ::2], low[:, 1::2])
            high = np.fmax(high[:, ::2], high[:, 1::2])
        self._store(steps, _mean(cube), low, high)

    def _store(self, steps: Steps, mean: Values, low: Values, high: Values) -> None:
        n, k = self._buckets, len(steps)
        if n + k > len(self._bucket_steps):
            wider = min(self._limit, max(2 * len(self._bucket_steps), n + k, _BATCH))
            self._bucket_steps = np.resize(self._bucket_steps, wider) if n else np.zeros(wider, np.int64)
            self._widen(n, wider)
        self._bucket_steps[n : n + k] = steps
        self._mean[:, n : n + k] = mean
        if self._span > 1:
            self._low[:, n : n + k] = low
            self._high[:, n : n + k] = high
        self._buckets += k
        if self._buckets == self._limit:
            self._merge_pairs()

    def _widen(self, used: int, wider: int) -> None:
        """Room for `wider` buckets. Buckets of one sample have one array: their mean is their lowest and highest."""
        self._mean = _wider(self._mean, used, wider)
        if self._span == 1:
            self._low = self._high = self._mean
        else:
            self._low, self._high = _wider(self._low, used, wider), _wider(self._high, used, wider)

    def _merge_pairs(self) -> None:
        half = self._limit // 2
        self._bucket_steps[:half] = self._bucket_steps[: self._limit : 2].copy()
        even, odd = slice(0, self._limit, 2), slice(1, self._limit, 2)
        if self._span == 1:
            self._low, self._high = self._mean.copy(), self._mean.copy()
        one, other = self._mean[:, even], self._mean[:, odd]
        both = (one + other) / 2
        self._mean[:, :half] = np.where(np.isnan(both), np.fmax(one, other), both)  # one known: that one
        self._low[:, :half] = np.fmin(self._low[:, even], self._low[:, odd])
        self._high[:, :half] = np.fmax(self._high[:, even], self._high[:, odd])
        self._buckets, self._span = half, self._span * 2


class _Partial:
    """The bucket under way."""

    __slots__ = ("_known", "_sum", "high", "low", "samples", "step")

    def __init__(self, size: int, step: int) -> None:
        self.step, self.samples = step, 0
        self._sum = np.zeros(size)
        self._known = np.zeros(size)
        self.low: Values = np.full(size, np.nan, np.float32)
        self.high: Values = np.full(size, np.nan, np.float32)

    def add(self, block: Values) -> None:
        known = ~np.isnan(block)
        whole = bool(known.all())
        self._sum += (block if whole else np.where(known, block, 0.0)).sum(axis=1, dtype=np.float64)
        self._known += block.shape[1] if whole else known.sum(axis=1)
        lowest, highest = (np.minimum, np.maximum) if whole else (np.fmin, np.fmax)
        self.low = np.fmin(self.low, lowest.reduce(block, axis=1))
        self.high = np.fmax(self.high, highest.reduce(block, axis=1))
        self.samples += block.shape[1]

    def mean(self) -> Values:
        with np.errstate(invalid="ignore", divide="ignore"):
            mean: Values = (self._sum / self._known).astype(np.float32)
        return mean

    def grow(self, size: int) -> None:
        extra = size - len(self._sum)
        self._sum, self._known = (np.append(a, np.zeros(extra)) for a in (self._sum, self._known))
        self.low, self.high = _more_rows(self.low, size), _more_rows(self.high, size)


class History:
    """Every signal of a run, by name, in fixed memory.

    Args:
        targets: the names that the frames' arrays run over; they may `grow` at the end.
        catalogue: what may be measured, and over which targets.
        tail: exact samples kept of a signal of the run; a quarter of it for signals with many targets,
            which are sampled less often.
        buckets: most columns of a decimated run; half of it for signals with many targets.

    >>> history = History.from_series({"loss": [2.0, 1.5, 1.25]})
    >>> history.step, history.latest("loss").tolist()
    (3, [1.25])
    """

    def __init__(
        self, targets: Targets, catalogue: Catalogue = CATALOGUE, *, tail: int = 2048, buckets: int = 600
    ) -> None:
        self.targets, self.catalogue = targets, catalogue
        self.step = 0
        self.time = float("nan")
        self.epoch: float | None = None
        self._tail, self._bucket_limit = tail, buckets
        self._series: dict[str, Series] = {}
        self._axes: dict[str, Axis] = {}
        self._closed = False

    def keep_only(self, names: Iterable[str]) -> None:
        """From now on keep the signals that are asked for so far, and `names`; drop the samples of all others."""
        for name in names:
            self.series(name)
        self._closed = True

    def series(self, name: str) -> Series:
        """The series of the signal `name`, empty before its first sample. Raises KeyError for an unknown signal."""
        series = self._series.get(name)
        if series is None:
            axis = self.catalogue[name].per
            buckets = self._bucket_limit if axis == "run" else max(self._bucket_limit // 2, 8)
            phase = 1 + len(self._series) % _BATCH
            series = self._series[name] = Series(self.targets.size(axis), self.tail_length(axis), buckets, phase)
            self._axes[name] = axis
        return series

    def tail_length(self, axis: Axis) -> int:
        """How many exact samples are kept of a signal over `axis`."""
        return self._tail if axis == "run" else max(self._tail // 4, min(self._tail, 256))

    def grow(self, targets: Targets) -> None:
        """Take on targets that appeared since. Raises ValueError where an axis became shorter."""
        for name, series in self._series.items():
            series.grow(targets.size(self._axes[name]))
        self.targets = targets

    def append(self, frame: Frame) -> None:
        """Add what one step measured.

        Raises:
            ValueError: the frame goes back in time, holds a signal that the catalogue does not know, or
                an array longer than the targets known so far.
        """
        step = frame.step
        if step < self.step:
            raise ValueError(f"frames must come in order of steps: got step {step} after step {self.step}")
        for series, values in self._fitting(frame):
            series.append(step, values)
        self.step, self.time, self.epoch = step, frame.time, frame.epoch

    def _fitting(self, frame: Frame) -> list[tuple[Series, Values]]:
        """The series of each array of a frame; all are looked at before the first is appended."""
        pairs, known = [], self._series
        for name, values in frame.values.items():
            series = known.get(name)
            if series is None:
                if name not in self.catalogue:
                    raise ValueError(
                        f"step {frame.step}: the frame holds {name!r}, which is not in the catalogue of signals"
                    )
                if self._closed:
                    continue
                series = self.series(name)
            if len(values) > series.size:
                raise ValueError(
                    f"step {frame.step}: {name!r} has {len(values)} values for {series.size} {self._axes[name]} "
                    "targets; call grow() with the new targets first"
                )
            pairs.append((series, values))
        return pairs

    def latest(self, name: str) -> Values | None:
        """The newest value of every target, NaN where it was never measured; None if the signal never was."""
        series = self._series.get(name)
        return series.latest().copy() if series is not None and series.count else None

    def tail(self, name: str, samples: int | None = None) -> tuple[Steps, Values]:
        """The newest exact samples, oldest first: steps (k,) and values (k, targets)."""
        steps, values = self.series(name).tail(samples)
        return steps.copy(), values.T.copy()

    def whole(self, name: str) -> Whole:
        """The whole run of a signal, decimated to at most `buckets` columns."""
        return self.series(name).whole()

    def measured(self) -> tuple[str, ...]:
        """The names of the signals measured at least once, in order of their first sample."""
        return tuple(name for name, series in self._series.items() if series.count)

    @staticmethod
    def from_series(
        series: Mapping[str, Any], targets: Targets | None = None, catalogue: Catalogue = CATALOGUE, **options: int
    ) -> History:
        """A history as if `series` had been measured from step 1 on; see `frames_from_series` for the forms."""
        targets = targets if targets is not None else targets_of_series(series, catalogue)
        history = History(targets, catalogue, **options)
        for frame in frames_from_series(series, targets, catalogue):
            history.append(frame)
        return history


def targets_of_series(series: Mapping[str, Any], catalogue: Catalogue = CATALOGUE) -> Targets:
    """The targets that the mappings inside `series` name, in order of appearance."""
    found: dict[Axis, dict[str, None]] = {"layer": {}, "param": {}, "group": {}, "rank": {}}
    for name, values in series.items():
        if isinstance(values, Mapping):
            found[catalogue[name].per].update(dict.fromkeys(str(key) for key in values if key != "default"))
    params = tuple(found["param"])
    layers = tuple({**found["layer"], **{p.rpartition(".")[0]: None for p in params if "." in p}})
    owner = {name: i for i, name in enumerate(layers)}
    return Targets(
        layers=layers,
        layer_kinds=("Linear",) * len(layers),
        layer_depths=tuple(range(len(layers))),
        params=params,
        param_layers=tuple(owner.get(p.rpartition(".")[0], -1) for p in params),
        param_shapes=((1,),) * len(params),
        groups=tuple(found["group"]) or ("sgd[0]",),
        ranks=tuple(found["rank"]) or ("0",),
    )


def frames_from_series(
    series: Mapping[str, Any],
    targets: Targets | None = None,
    catalogue: Catalogue = CATALOGUE,
    *,
    epoch_steps: int | None = None,
    step_seconds: float = 0.1,
) -> Iterator[Frame]:
    """One frame per step from written-down series, the first at step 1.

    The value of a signal is a sequence of numbers for a signal of the run, or a mapping from target
    name to such a sequence (``default`` for all targets not named). A sequence may be shorter than
    the others; NaN and what lies past its end is not measured.
    """
    targets = targets if targets is not None else targets_of_series(series, catalogue)
    tables = {name: _table(values, name, targets, catalogue) for name, values in series.items()}
    length = max((table.shape[0] for table in tables.values()), default=0)
    measured = {name: [not row.all() for row in np.isnan(table)] for name, table in tables.items()}
    for index in range(length):
        present = {name: table[index] for name, table in tables.items() if index < len(table) and measured[name][index]}
        epoch = None if epoch_steps is None else (index + 1) / epoch_steps
        yield Frame(index + 1, (index + 1) * step_seconds, epoch, present)


def _table(values: Any, name: str, targets: Targets, catalogue: Catalogue) -> Values:
    """The values of one signal as (steps, targets)."""
    names = targets.names(catalogue[name].per)
    if not isinstance(values, Mapping):
        table: Values = np.asarray(values, np.float32)
        return np.repeat(table.reshape(-1, 1), len(names), axis=1) if table.ndim == 1 else table
    unknown = [key for key in values if key != "default" and key not in names]
    if unknown:
        raise ValueError(f"series of {name!r}: no target is called {unknown[0]!r}; there are {', '.join(names)}")
    columns: list[Sequence[float]] = [values.get(target, values.get("default", ())) for target in names]
    table = np.full((max((len(c) for c in columns), default=0), len(names)), np.nan, np.float32)
    for index, numbers in enumerate(columns):
        table[: len(numbers), index] = numbers
    return table


def _mean(cube: Values) -> Values:
    """Mean over the last axis of what is known; NaN where nothing is."""
    if not np.isnan(cube).any():
        exact: Values = cube.mean(axis=2, dtype=np.float64).astype(np.float32)
        return exact
    known = ~np.isnan(cube)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: Values = (np.where(known, cube, 0).sum(axis=2, dtype=np.float64) / known.sum(axis=2)).astype(np.float32)
    return mean


def _more_rows(array: Values, size: int) -> Values:
    missing = np.full((size - array.shape[0], *array.shape[1:]), np.nan, np.float32)
    return np.concatenate((array, missing))


def _wider(array: Values, used: int, width: int) -> Values:
    wider = np.empty((array.shape[0], width), np.float32)
    wider[:, :used] = array[:, :used]
    return wider
