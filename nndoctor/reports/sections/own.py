"""Metrics of the user's own: every signal that subscribers of the run published, with its curve and what it means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from nndoctor.reports.charts import Chart, Line, median, quantity, run_line, spread_line
from nndoctor.reports.sections.common import bands
from nndoctor.reports.view import RunView
from nndoctor.signals import Signal

CHARTS = 16
"""So many signals get a chart; all of them stand in the table."""

KINDS = {"layer": "layers", "param": "parameters", "group": "groups", "rank": "ranks"}


class Own(NamedTuple):
    """One published signal: its declaration, how many targets it was measured at, and its newest value (their median)."""

    name: str
    help: str
    unit: str
    where: str
    newest: str
    low: str
    high: str


def build(view: RunView) -> Mapping[str, Any] | None:
    measured = set(view.history.measured())
    published = [signal for signal in view.published if signal.name in measured]
    if not published:
        return None
    span = (1, view.history.step) if view.history.step else None
    charts = []
    for place, signal in enumerate(published[:CHARTS]):
        line = _line(view, signal)
        if line is not None:
            note = signal.help if signal.per == "run" else f"{signal.help} {_spread(view, signal)}".strip()
            charts.append(Chart(f"own{place}", signal.name, (line,), _unit(signal), note, bands(view), span=span))
    return {
        "charts": charts,
        "rows": [_row(view, signal) for signal in published],
        "silent": [signal for signal in view.published if signal.name not in measured],
        "unshown": max(0, len(published) - CHARTS),
    }


def _line(view: RunView, signal: Signal) -> Line | None:
    return run_line(view.history, signal.name) if signal.per == "run" else spread_line(view.history, signal.name, "median")


def _spread(view: RunView, signal: Signal) -> str:
    count = _targets(view, signal)
    return "" if count < 2 else f"Median of {count} {KINDS[signal.per]}, between their 10th and 90th percentile."


def _targets(view: RunView, signal: Signal) -> int:
    latest = view.history.latest(signal.name)
    return 0 if latest is None else int((~np.isnan(latest)).sum())


def _row(view: RunView, signal: Signal) -> Own:
    latest = view.history.latest(signal.name)
    whole = view.history.whole(signal.name)
    low, high = (part[np.isfinite(part)] for part in (whole.low, whole.high))
    count, unit = _targets(view, signal), _unit(signal)
    return Own(
        signal.name,
        signal.help,
        signal.unit,
        "the run" if signal.per == "run" else f"{count} {KINDS[signal.per] if count != 1 else signal.per}",
        quantity(median(latest) if latest is not None else float("nan"), unit),
        quantity(float(low.min()), unit) if low.size else "–",
        quantity(float(high.max()), unit) if high.size else "–",
    )


def _unit(signal: Signal) -> str:
    """As numbers are written; a fraction of a subscriber's is shown as it was published."""
    return "" if signal.unit == "fraction" else signal.unit
