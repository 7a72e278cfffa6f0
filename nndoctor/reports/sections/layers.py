"""The layer table: newest values of every layer, the layers with findings first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from nndoctor.findings import Finding, Severity
from nndoctor.reports.charts import number, quantity
from nndoctor.reports.svg import sparkline
from nndoctor.reports.view import RunView, network_order
from nndoctor.signals import Values

COLUMNS = {
    "weight.norm": "weight norm",
    "grad.norm": "gradient norm",
    "update.ratio": "update ratio",
    "act.std": "activation std",
    "act.dead_fraction": "dead units",
    "act.saturated_fraction": "saturated",
}
CURVES = 80
"""So many layers, the worst, get a curve of their gradient norm."""


class Cell(NamedTuple):
    text: str
    sort: str


@dataclass(frozen=True, slots=True)
class Row:
    index: int
    name: str
    kind: str
    depth: int
    parameters: int
    tone: str
    rank: int
    findings: tuple[Finding, ...]
    cells: tuple[Cell, ...]
    curve: Markup


def build(view: RunView) -> Mapping[str, Any] | None:
    targets = view.targets
    if not targets.layers:
        return None
    latest = {name: view.history.latest(name) for name in COLUMNS}
    columns = {name: title for name, title in COLUMNS.items() if _any(latest[name])}
    by_layer = findings_by_layer(view)
    sizes = parameters_by_layer(view)
    order = {index: place for place, index in enumerate(network_order(targets))}
    worst_first = sorted(order, key=lambda index: (-_weight(by_layer.get(index, [])), order[index]))
    curves = _curves(view, worst_first[:CURVES])
    rows = [
        Row(
            index=index,
            name=targets.layers[index],
            kind=targets.layer_kinds[index] if index < len(targets.layer_kinds) else "",
            depth=order[index] + 1,
            parameters=sizes[index],
            tone=max((f.severity for f in by_layer.get(index, [])), default=Severity.INFO).label,
            rank=_weight(by_layer.get(index, [])),
            findings=tuple(by_layer.get(index, [])),
            cells=tuple(_cell(latest[name], index, view.history.catalogue[name].unit) for name in columns),
            curve=curves.get(index, Markup()),
        )
        for index in worst_first
    ]
    helps = {title: view.history.catalogue[name].help for name, title in columns.items()}
    return {"rows": rows, "columns": helps, "ill": sum(bool(row.findings) for row in rows), "parameters": sum(sizes)}


def findings_by_layer(view: RunView) -> dict[int, list[Finding]]:
    """Findings above info that speak now, by the layer they are about or whose parameters they are about."""
    places = {name: index for index, name in enumerate(view.targets.layers)}
    owners = {
        name: view.targets.param_layers[index]
        for index, name in enumerate(view.targets.params)
        if index < len(view.targets.param_layers)
    }
    found: dict[int, list[Finding]] = {}
    for finding in view.diagnosis.findings:
        if finding.suppressed is not None or finding.severity is Severity.INFO:
            continue
        touched = {places.get(target, owners.get(target)) for target in finding.targets}
        for index in touched:
            if index is not None:
                found.setdefault(index, []).append(finding)
    return found


def parameters_by_layer(view: RunView) -> list[int]:
    """Number of own parameters of every layer."""
    sizes = [0] * len(view.targets.layers)
    for owner, shape in zip(view.targets.param_layers, view.targets.param_shapes, strict=False):
        if 0 <= owner < len(sizes):
            sizes[owner] += math.prod(shape)
    return sizes


def _weight(findings: list[Finding]) -> int:
    """Sorts layers: the worst severity decides, then root causes before symptoms, then the number of findings."""
    if not findings:
        return 0
    root = any(f.explained_by is None for f in findings)
    return 1000 * max(f.severity for f in findings) + 500 * root + min(len(findings), 400)


def _any(values: Values | None) -> bool:
    return values is not None and bool(np.isfinite(values).any())


def _cell(values: Values | None, index: int, unit: str) -> Cell:
    value = float(values[index]) if values is not None and index < len(values) else math.nan
    return Cell(quantity(value, unit) if unit == "fraction" else number(value), f"{value:.6g}" if math.isfinite(value) else "")


def _curves(view: RunView, indices: list[int]) -> dict[int, Markup]:
    if "grad.norm" not in view.history.measured():
        return {}
    whole, span = view.history.whole("grad.norm"), (1, view.history.step)
    mean, steps = whole.mean, whole.steps.tolist()
    names = view.targets.layers
    return {
        index: sparkline(mean[:, index].tolist(), steps, span=span, label=f"gradient norm of {names[index]}")
        for index in indices
        if index < mean.shape[1] and np.isfinite(mean[:, index]).any()
    }
