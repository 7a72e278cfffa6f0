"""Every sample of the timeline's curves around the step at which a finding began, where the whole run is kept in buckets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nndoctor.findings import Diagnosis
from nndoctor.history import History
from nndoctor.reports.charts import Line, quantiles
from nndoctor.signals import Frame

AROUND = 150
"""Steps of a window on either side of the step at which a finding began."""

WINDOWS = 4
"""So many root causes get a window: each costs some ten kilobytes of the page."""

RUN_SIGNALS = ("loss", "val.loss", "val.accuracy", "lr", "grad.total_norm", "grad.total_norm_preclip")
SPREAD_SIGNALS = ("grad.norm", "update.ratio")
"""Per layer; kept as median between the 10th and 90th percentile, as the timeline draws them."""


@dataclass(frozen=True, slots=True)
class RawWindow:
    """All samples from step `first` to `last`, by signal."""

    first: int
    last: int
    curves: Mapping[str, Line]


def stretches(diagnosis: Diagnosis, end: int) -> list[tuple[int, int]]:
    """The steps around the beginning of each of the first root causes, those that touch joined, in order."""
    wanted = sorted((max(f.first_step - AROUND, 1), min(f.first_step + AROUND, end)) for f in diagnosis.root_causes[:WINDOWS])
    joined: list[tuple[int, int]] = []
    for first, last in wanted:
        if first > last:
            continue
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def is_bucketed(history: History) -> bool:
    """Whether the whole run of any signal of the timeline holds fewer places than there were samples."""
    return any(
        history.series(name).count > len(history.whole(name).steps)
        for name in (*RUN_SIGNALS, *SPREAD_SIGNALS)
        if name in history.measured()
    )


def raw_windows(frames: Iterable[Frame], diagnosis: Diagnosis, history: History) -> tuple[RawWindow, ...]:
    """Read the windows out of the frames of a record, which are read no further than the last window.

    Nothing is read where the history still holds every sample.
    """
    wanted = stretches(diagnosis, history.step) if is_bucketed(history) else []
    if not wanted:
        return ()
    held: list[list[Frame]] = [[] for _ in wanted]
    place = 0
    for frame in frames:
        while place < len(wanted) and frame.step > wanted[place][1]:
            place += 1
        if place == len(wanted):
            break
        if frame.step >= wanted[place][0]:
            held[place].append(frame)
    return tuple(RawWindow(first, last, _curves(found)) for (first, last), found in zip(wanted, held, strict=True) if found)


def refined(line: Line, signal: str, windows: Sequence[RawWindow]) -> Line:
    """`line` with its buckets inside the windows replaced by the samples themselves."""
    for window in windows:
        exact = window.curves.get(signal)
        if exact is None:
            continue
        before, after = line.steps < window.first, line.steps > window.last
        line = Line(
            line.label,
            *(
                np.concatenate([old[before], new, old[after]])
                for old, new in ((line.steps, exact.steps), (line.mean, exact.mean), (line.low, exact.low), (line.high, exact.high))
            ),
        )
    return line


def _curves(frames: Sequence[Frame]) -> dict[str, Line]:
    found: dict[str, Line] = {}
    for name in (*RUN_SIGNALS, *SPREAD_SIGNALS):
        rows = [(frame.step, spread) for frame in frames if (spread := _spread(frame, name)) is not None]
        if rows:
            low, mean, high = np.array([spread for _, spread in rows], float).T
            found[name] = Line(name, np.array([step for step, _ in rows], np.int64), mean, low, high)
    return found


def _spread(frame: Frame, name: str) -> tuple[float, float, float] | None:
    """Low, middle and high of a signal in a frame; None where it was not measured."""
    values = np.asarray(frame.values.get(name, ()), float)
    if name in RUN_SIGNALS:
        return None if not values.size or np.isnan(values[0]) else (float(values[0]),) * 3
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    low, middle, high = quantiles(values[None, :], (0.1, 0.5, 0.9))[:, 0].tolist()
    return low, middle, high
