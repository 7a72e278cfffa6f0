"""The verdict: a grade, one sentence, the best fix, and the run's vital signs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from markupsafe import Markup

from nndoctor.findings import rules_that_looked, taken_for
from nndoctor.reports.charts import Line, number, run_line, spread_line, whole_number
from nndoctor.reports.sections.common import Case, case
from nndoctor.reports.sections.measured import overhead, sampling
from nndoctor.reports.svg import sparkline
from nndoctor.reports.view import RunView, grade


class Vital(NamedTuple):
    """One number with its curve over the whole run."""

    name: str
    value: str
    change: str
    curve: Markup


def build(view: RunView) -> Mapping[str, Any]:
    roots = [case(view, finding) for finding in view.diagnosis.root_causes]
    remedies = roots[0].remedies if roots else ()
    return {
        "grade": grade(view.diagnosis),
        "sentence": sentence(view, roots),
        "detail": roots[0].message if roots else watched(view),
        "about": about(view),
        "rules": rules_that_looked(view.diagnosis),
        "taken_for": "; ".join(taken_for(view.facts)),
        "remedy": remedies[0] if remedies else None,
        "verdict": view.diagnosis.verdict,
        "vitals": vitals(view),
    }


def sentence(view: RunView, roots: list[Case]) -> str:
    """What a person would say first."""
    steps = whole_number(view.diagnosis.steps)
    if view.diagnosis.steps == 0:
        return "Nothing was recorded, so nothing could be examined."
    if not roots:
        return f"No problems found in {steps} step{'s' * (view.diagnosis.steps != 1)}."
    first = roots[0]
    told = f"{first.title} {first.since}"
    if first.finding.targets:
        told += f" in {first.where}"
    others = len(roots) - 1
    return told + (f", and {others} more root cause{'s' * (others != 1)}." if others else ".")


def watched(view: RunView) -> str:
    """What stood behind the silence of a healthy run: the rules that watched, and what watching cost."""
    if view.diagnosis.steps == 0:
        return ""
    count, layers = view.diagnosis.rules_looking, view.targets.modules
    said = f"{count} rule{'s' * (count != 1)} watched {whole_number(layers)} layer{'s' * (layers != 1)}"
    return "; ".join(part for part in (said, sampling(view), overhead(view) and f"the doctor took {overhead(view)}") if part) + "."


def about(view: RunView) -> list[str]:
    """Model and optimizer, where the facts name them in a word or two."""
    known = (view.facts.get(key) for key in ("model", "optimizer"))
    return [text for text in known if isinstance(text, str) and 0 < len(text) <= 60]


def vitals(view: RunView) -> list[Vital]:
    history = view.history
    gradients = run_line(history, "grad.total_norm", "gradient norm") or spread_line(history, "grad.norm", "gradient norm")
    lines = [
        run_line(history, "loss", "loss"),
        run_line(history, "val.loss", "validation loss"),
        gradients,
        spread_line(history, "update.ratio", "update ratio"),
        run_line(history, "lr", "learning rate"),
    ]
    return [_vital(line, history.step) for line in lines if line is not None]


def _vital(line: Line, end: int) -> Vital:
    """The newest value; with its step where that was long before the end of the run."""
    known = line.finite
    label = f"{line.label} over the run"
    if not known.size:
        return Vital(line.label, "not finite", "", sparkline([], label=label))
    last = float(line.mean[-1])
    value = number(last) if last == last else number(float(known[-1]))
    change = f"from {number(float(known[0]))}" if known.size > 1 else "one sample"
    last_step = int(line.steps[-1])
    if end - last_step > 0.1 * end:
        change += f", at step {whole_number(last_step)}"
    return Vital(line.label, value, change, sparkline(line.mean.tolist(), line.steps.tolist(), span=(1, end), label=label))


