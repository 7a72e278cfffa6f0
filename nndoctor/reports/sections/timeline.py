"""The timeline: loss, learning rate, gradient norm and update ratio over the run, under the findings' bands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from nndoctor.history import History
from nndoctor.reports.charts import Band, Chart, Line, median, plain_name, run_line, spread_line
from nndoctor.reports.sections.common import bands
from nndoctor.reports.view import RunView
from nndoctor.signals import OBSERVED_PREFIX

OBSERVED_CHARTS = 8
"""So many observed values get a chart here; all are listed under what was measured."""


def build(view: RunView) -> Mapping[str, Any]:
    history = view.history
    marked = bands(view)
    broken = not_finite(history)
    span = (1, history.step) if history.step else None
    charts = [
        Chart("loss", "Loss", _lines(run_line(history, "loss"), run_line(history, "val.loss", "validation loss")), bands=broken, reference=_chance(history)),
        Chart("lr", "Learning rate", _lines(run_line(history, "lr", "learning rate"))),
        Chart("gradients", "Gradient norm", _gradient_lines(history)),
        Chart(
            "updates",
            "Update ratio",
            _lines(spread_line(history, "update.ratio", "median layer")),
            note="|change of the weights| / |weights| per step; 1e-3 is a usual size",
        ),
        Chart("accuracy", "Validation accuracy", _lines(run_line(history, "val.accuracy", "accuracy")), unit="fraction"),
    ]
    observed = [name for name in history.measured() if name.startswith(OBSERVED_PREFIX)]
    charts += [
        Chart(f"observed{place}", plain_name(name), _lines(run_line(history, name)), note="as observed")
        for place, name in enumerate(observed[:OBSERVED_CHARTS])
    ]
    drawn = [replace(chart, bands=(*marked, *chart.bands), span=span) for chart in charts if chart.lines]
    return {"charts": drawn, "bands": (*marked, *broken), "unshown": observed[OBSERVED_CHARTS:]}


def not_finite(history: History) -> tuple[Band, ...]:
    """The stretches of steps in which the loss was NaN or infinite, the first few."""
    found: set[int] = set()
    known: set[int] = set()
    for name in ("loss", "loss.nonfinite"):
        if name in history.measured():
            whole = history.whole(name)
            high = whole.high[:, 0]
            bad = np.isinf(whole.mean[:, 0]) | np.isinf(high) if name == "loss" else high > 0
            known.update(whole.steps.tolist())
            found.update(whole.steps[bad].tolist())
    order = sorted(known)
    stretches: list[list[int]] = []
    for index, step in enumerate(order):
        if step in found:
            end = order[index + 1] - 1 if index + 1 < len(order) else history.step
            if stretches and stretches[-1][1] + 1 >= step:
                stretches[-1][1] = end
            else:
                stretches.append([step, end])
    return tuple(Band("loss is not finite", first, last, "critical") for first, last in stretches[:4])


def _lines(*lines: Line | None) -> tuple[Line, ...]:
    return tuple(line for line in lines if line is not None)


def _gradient_lines(history: History) -> tuple[Line, ...]:
    before = run_line(history, "grad.total_norm_preclip", "before clipping")
    after = run_line(history, "grad.total_norm", "after clipping" if before else "all gradients")
    return _lines(after, before) or _lines(spread_line(history, "grad.norm", "median layer"))


def _chance(history: History) -> tuple[str, float] | None:
    """The loss of a uniform guess, drawn as a reference where it is known and the loss is near it."""
    latest = history.latest("loss.chance")
    value = median(latest) if latest is not None else float("nan")
    return ("uniform guess", value) if value == value and value > 0 else None
