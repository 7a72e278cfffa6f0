"""Windows of every sample around findings: only where the run is kept in buckets, exact, and read no further."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from nndoctor.findings import Diagnosis, Finding, Severity
from nndoctor.history import History
from nndoctor.reports.charts import run_line, spread_line
from nndoctor.reports.windows import AROUND, raw_windows, refined, stretches
from nndoctor.signals import Frame, Targets

TARGETS = Targets(layers=("a", "b", "c"), layer_kinds=("Linear",) * 3, layer_depths=(0, 1, 2))
STEPS = 3000


def frames(read: list[int] | None = None) -> Iterator[Frame]:
    for step in range(1, STEPS + 1):
        if read is not None:
            read.append(step)
        values = {"loss": np.array([step % 7], np.float32)}
        if step % 10 == 0:
            values["update.ratio"] = np.array([step, 2 * step, np.nan], np.float32)
        yield Frame(step, float(step), None, values)


@pytest.fixture(scope="module")
def history() -> History:
    made = History(TARGETS)
    for frame in frames():
        made.append(frame)
    return made


def ill(*first_steps: int) -> Diagnosis:
    return Diagnosis(tuple(Finding(f"r{step}", "r", Severity.ERROR, "high", (), step, STEPS) for step in first_steps), steps=STEPS)


def test_windows_that_touch_are_one_and_none_leaves_the_run() -> None:
    assert stretches(ill(10, 1000, 1200, 2950), STEPS) == [(1, 10 + AROUND), (1000 - AROUND, 1200 + AROUND), (2950 - AROUND, STEPS)]


def test_inside_a_window_a_line_holds_every_sample_and_outside_its_buckets(history: History) -> None:
    windows = raw_windows(frames(), ill(1000), history)
    line = run_line(history, "loss")
    assert line is not None
    exact = refined(line, "loss", windows)
    inside = (exact.steps >= 1000 - AROUND) & (exact.steps <= 1000 + AROUND)
    assert exact.steps[inside].tolist() == list(range(1000 - AROUND, 1000 + AROUND + 1))
    assert exact.mean[inside].tolist() == [step % 7 for step in exact.steps[inside].tolist()]
    assert set(exact.steps[~inside].tolist()) <= set(line.steps.tolist())
    assert (np.diff(exact.steps) > 0).all()


def test_layers_are_told_as_the_timeline_draws_them(history: History) -> None:
    windows = raw_windows(frames(), ill(1000), history)
    line = spread_line(history, "update.ratio", "median layer")
    assert line is not None
    exact = refined(line, "update.ratio", windows)
    at = exact.steps.tolist().index(1000)
    assert (exact.low[at], exact.mean[at], exact.high[at]) == pytest.approx((1100, 1500, 1900))


def test_the_record_is_read_no_further_than_the_last_window(history: History) -> None:
    read: list[int] = []
    raw_windows(frames(read), ill(500), history)
    assert read[-1] == 500 + AROUND + 1


def test_a_short_run_is_not_read_again() -> None:
    short = History.from_series({"loss": [1.0, 2.0, 3.0]})
    read: list[int] = []
    assert raw_windows(frames(read), ill(2), short) == ()
    assert raw_windows(frames(read), Diagnosis(steps=3), short) == ()
    assert read == []
