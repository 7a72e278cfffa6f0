"""Before and after: the loss of the run and of its repetition with the remedy, in one chart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nndoctor.reports.charts import Chart, number, run_line
from nndoctor.reports.view import RunView, grade


def build(view: RunView) -> Mapping[str, Any] | None:
    if view.before_after is None:
        return None
    after = view.before_after
    lines = [run_line(view.history, "loss", "before"), run_line(after.history, "loss", f"after: {after.label}")]
    chart = Chart("comparison.loss", "Loss before and after", tuple(line for line in lines if line is not None))
    return {
        "label": after.label,
        "charts": [chart],
        "before": {"grade": grade(view.diagnosis), "verdict": view.diagnosis.verdict, "loss": _last(lines[0])},
        "after": {"grade": grade(after.diagnosis), "verdict": after.diagnosis.verdict, "loss": _last(lines[1])},
    }


def _last(line: Any) -> str:
    """The mean of the last tenth of the curve: one sample of a noisy loss says little."""
    if line is None or not line.finite.size:
        return "not finite" if line is not None else "not measured"
    tail = line.mean[-max(1, len(line.mean) // 10) :]
    return number(float(tail.mean()))
