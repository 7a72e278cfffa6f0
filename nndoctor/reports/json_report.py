"""The report as JSON: the diagnosis, its facts, and the whole run's curves."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from nndoctor.findings import taken_for
from nndoctor.reports.charts import run_line
from nndoctor.reports.view import RunView, grade

SCHEMA = "nndoctor-report/1"


def generator() -> str:
    """``nndoctor 0.1.0``; without the version where the package is not installed."""
    try:
        return f"nndoctor {version('nndoctor')}"
    except PackageNotFoundError:
        return "nndoctor"


def render(view: RunView) -> str:
    """The report as indented JSON text; numbers that are not finite are the strings NaN, Infinity, -Infinity."""
    return json.dumps(diagnosis_document(view), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def diagnosis_document(view: RunView, series: bool = True) -> dict[str, Any]:
    """The report as plain values that JSON can hold.

    Args:
        series: with the curves: windows around findings, every signal of the run, newest values of the layers.
    """
    diagnosis = view.diagnosis.to_dict()
    diagnosis.pop("facts", None)
    if not series:
        for finding in diagnosis["findings"]:
            for evidence in finding["evidence"]:
                evidence.pop("steps"), evidence.pop("values")
    mark = grade(view.diagnosis)
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "generator": generator(),
        "run": {"name": view.name, "status": view.status, "facts": dict(view.facts)},
        "grade": {"letter": mark.letter, "word": mark.word},
        "taken_for": list(taken_for(view.facts)),
        **diagnosis,
        "root_causes": [finding.rule for finding in view.diagnosis.root_causes],
        "rules_quiet": _quiet(view),
        "notes": [note._asdict() for note in view.notes],
        "problems": list(view.problems),
    }
    if view.before_after is not None:
        after = view.before_after
        document["after"] = {"label": after.label, "grade": grade(after.diagnosis).letter, **after.diagnosis.to_dict()}
    if series:
        document["series"] = _series(view)
        document["newest"] = _newest(view)
        document["layers_named"] = list(view.targets.layers)
    plain: dict[str, Any] = finite(document)
    return plain


def _quiet(view: RunView) -> list[str]:
    heard = {f.rule for f in view.diagnosis.findings} | {n.rule for n in view.diagnosis.not_examined}
    return [rule for rule in view.rule_docs if rule not in heard]


def _series(view: RunView) -> dict[str, Any]:
    """Every signal of the run, thinned as the history keeps it."""
    found = {}
    for name in view.history.measured():
        line = run_line(view.history, name, name) if view.history.catalogue[name].per == "run" else None
        if line is not None:
            found[name] = {
                "unit": view.history.catalogue[name].unit,
                "steps": line.steps.tolist(),
                "mean": _short(line.mean),
                "low": _short(line.low),
                "high": _short(line.high),
            }
    return found


def _newest(view: RunView) -> dict[str, Any]:
    """The newest value of every target of the signals that have several, by target name."""
    found = {}
    for name in view.history.measured():
        per = view.history.catalogue[name].per
        if per != "run":
            latest = view.history.latest(name)
            names = view.targets.names(per)
            if latest is not None:
                pairs = zip(names, _short(latest), strict=False)
                found[name] = {target: value for target, value in pairs if value == value}
    return found


def _short(values: Any) -> list[float]:
    return [float(f"{value:.6g}") for value in np.asarray(values, float).tolist()]


def finite(value: Any) -> Any:
    """`value` with everything replaced that JSON cannot hold."""
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return number if math.isfinite(number) else "NaN" if number != number else "Infinity" if number > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [finite(item) for item in value]
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, np.ndarray):
        return finite(value.tolist())
    return str(value)
