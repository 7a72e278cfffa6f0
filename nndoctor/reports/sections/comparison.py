"""Before and after: the loss of the run and of its repetition with the remedy, in one chart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nndoctor.reports.charts import Chart, number, run_line
from nndoctor.reports.view import RunView, grade

CURVES = (("loss", "Loss", ""), ("val.loss", "Validation loss", ""), ("val.accuracy", "Validation accuracy", "fraction"))


def build(view: RunView) -> Mapping[str, Any] | None:
    if view.before_after is None:
        return None
    after = view.before_after
    charts = []
    for signal, title, unit in CURVES:
        pair = (run_line(view.history, signal, "before"), run_line(after.history, signal, "after"))
        lines = tuple(line for line in pair if line is not None)
        if lines:
            charts.append(Chart(f"comparison.{signal}", f"{title} before and after", lines, unit, span=(1, max(view.history.step, after.history.step))))
    return {
        "label": after.label,
        "charts": charts,
        "before": {"grade": grade(view.diagnosis), "verdict": view.diagnosis.verdict, "loss": _last(run_line(view.history, "loss"))},
        "after": {"grade": grade(after.diagnosis), "verdict": after.diagnosis.verdict, "loss": _last(run_line(after.history, "loss"))},
    }


def _last(line: Any) -> str:
    """The mean of the last tenth of the curve: one sample of a noisy loss says little."""
    if line is None or not line.finite.size:
        return "not finite" if line is not None else "not measured"
    tail = line.mean[-max(1, len(line.mean) // 10) :]
    return number(float(tail.mean()))
