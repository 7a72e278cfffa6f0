"""The timeline: loss, learning rate, gradient norm and update ratio over the run, under the findings' bands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nndoctor.history import History
from nndoctor.reports.charts import Band, Chart, Line, median, plain_name, run_line, spread_line
from nndoctor.reports.sections.common import bands
from nndoctor.reports.view import RunView
from nndoctor.reports.windows import AROUND, refined
from nndoctor.signals import OBSERVED_PREFIX

OBSERVED_CHARTS = 8
"""So many observed values get a chart here; all are listed under what was measured."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """A chart before its curves are read: the signals of its lines, with their labels, and how it is drawn."""

    id: str
    title: str
    signals: tuple[tuple[str, str], ...]
    unit: str = ""
    note: str = ""
    zeros: bool = False


PLANS = (
    _Plan("loss", "Loss", (("loss", "loss"), ("val.loss", "validation loss"))),
    _Plan("lr", "Learning rate", (("lr", "learning rate"),)),
    _Plan("gradients", "Gradient norm", (("grad.total_norm", "all gradients"), ("grad.total_norm_preclip", "before clipping")), zeros=True),
    _Plan("layers", "Gradient norm", (("grad.norm", "median layer"),), note="median layer, between the 10th and 90th percentile of layers", zeros=True),
    _Plan(
        "updates", "Update ratio", (("update.ratio", "median layer"),),
        note="|change of the weights| / |weights| per step, median layer; 1e-3 is a usual size", zeros=True,
    ),
    _Plan("accuracy", "Validation accuracy", (("val.accuracy", "accuracy"),), unit="fraction"),
)  # fmt: skip


def build(view: RunView) -> Mapping[str, Any]:
    history = view.history
    marked = bands(view)
    broken = not_finite(history)
    span = (1, history.step) if history.step else None
    charts = {plan.id: _chart(view, plan) for plan in PLANS}
    if charts["gradients"].lines:
        del charts["layers"]
    charts["loss"] = replace(charts["loss"], bands=broken, reference=_chance(history))
    observed = [name for name in history.measured() if name.startswith(OBSERVED_PREFIX)]
    named = [
        Chart(f"observed{place}", plain_name(name), _lines(run_line(history, name)), note="as observed")
        for place, name in enumerate(observed[:OBSERVED_CHARTS])
    ]
    drawn = [replace(chart, bands=(*marked, *chart.bands), span=span) for chart in (*charts.values(), *named) if chart.lines]
    return {
        "charts": drawn,
        "bands": [(band, around(band, history.step)) for band in (*marked, *broken)],
        "unshown": observed[OBSERVED_CHARTS:],
        "exact": bool(view.windows),
        "end": history.step,
    }


def around(band: Band, end: int) -> tuple[int, int]:
    """The steps to look at for the beginning of a band."""
    return max(band.first - AROUND, 1), min(band.first + AROUND, end)


def _chart(view: RunView, plan: _Plan) -> Chart:
    read = spread_line if plan.signals[0][0] in ("grad.norm", "update.ratio") else run_line
    found = [(signal, line) for signal, label in plan.signals if (line := read(view.history, signal, label)) is not None]
    if plan.id == "gradients" and len(found) == 2:
        found[0] = (found[0][0], replace(found[0][1], label="after clipping"))
    return Chart(
        plan.id, plan.title, tuple(line for _, line in found), plan.unit, plan.note, zeros=plan.zeros,
        detail=tuple(refined(line, signal, view.windows) for signal, line in found) if view.windows else (),
    )  # fmt: skip


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


def _chance(history: History) -> tuple[str, float] | None:
    """The loss of a uniform guess, drawn as a reference where it is known and the loss is near it."""
    latest = history.latest("loss.chance")
    value = median(latest) if latest is not None else float("nan")
    return ("uniform guess", value) if value == value and value > 0 else None
