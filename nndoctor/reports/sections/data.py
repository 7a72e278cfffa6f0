"""Data: what the batches looked like, inputs and targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from nndoctor.reports.charts import number, quantity, run_line
from nndoctor.reports.svg import sparkline
from nndoctor.reports.view import RunView
from nndoctor.signals import CATALOGUE


class Measure(NamedTuple):
    """A signal of the run: newest value, range over the run, curve."""

    name: str
    help: str
    newest: str
    low: str
    high: str
    curve: Markup


def build(view: RunView) -> Mapping[str, Any] | None:
    names = [signal.name for signal in CATALOGUE if signal.name.startswith(("input.", "target.", "loader."))]
    rows = [row for name in names if name in view.history.measured() and (row := measure(view, name)) is not None]
    if not rows:
        return None
    return {"rows": [row for row in rows if row.low != row.high], "constant": [row for row in rows if row.low == row.high]}


def measure(view: RunView, name: str) -> Measure | None:
    line = run_line(view.history, name)
    if line is None:
        return None
    signal = view.history.catalogue[name]
    low, high = line.low[np.isfinite(line.low)], line.high[np.isfinite(line.high)]
    return Measure(
        name,
        signal.help,
        quantity(float(line.mean[-1]), signal.unit),
        quantity(float(low.min()), signal.unit) if low.size else number(float("nan")),
        quantity(float(high.max()), signal.unit) if high.size else number(float("nan")),
        sparkline(line.mean.tolist(), line.steps.tolist(), span=(1, view.history.step), label=f"{name} over the run") if len(line.mean) > 1 else Markup(),
    )
