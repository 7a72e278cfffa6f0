"""Time: where a step goes, and which layers take it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from nndoctor.reports.charts import Chart, duration, median, run_line, whole_number
from nndoctor.reports.sections.measured import overhead_share
from nndoctor.reports.svg import bar, share_bar
from nndoctor.reports.view import RunView
from nndoctor.signals import Values

PARTS = {
    "step.data_wait": ("t-data", "waiting for data"),
    "step.forward": ("t-forward", "forward"),
    "step.loss": ("t-loss", "loss"),
    "step.backward": ("t-backward", "backward"),
    "step.optimizer": ("t-optimizer", "optimizer"),
    "step.doctor": ("t-doctor", "the doctor itself"),
    "step.other": ("t-other", "everything else"),
}
DOCTOR = "step.doctor"
"""Its part is averaged over all steps: the steps that are measured in parts are those in which the doctor works most."""
LAYERS = 20


class Part(NamedTuple):
    tone: str
    name: str
    typical: str
    share: str


class LayerTime(NamedTuple):
    name: str
    kind: str
    forward: str
    backward: str
    share: str
    bar: Markup


def build(view: RunView) -> Mapping[str, Any] | None:
    step = median(view.history.tail("step.time")[1]) if "step.time" in view.history.measured() else float("nan")
    means = {name: _mean(view, name) for name in PARTS if name != DOCTOR}
    means[DOCTOR] = overhead_share(view) * step
    known = {name: means[name] for name in PARTS if means[name] == means[name]}
    total = sum(known.values())
    layers, layer_total = _layers(view)
    if not known and not layers:
        return None
    parts = [
        Part(PARTS[name][0], PARTS[name][1], duration(value), f"{100 * value / total:.1f}\u202f%" if total else "–")
        for name, value in known.items()
    ]
    shares = [(PARTS[name][0], value / total if total else 0.0) for name, value in known.items()]
    label = ", ".join(f"{part.name} {part.share}" for part in parts)
    line = run_line(view.history, "step.time", "step time")
    charts = [Chart("steptime", "Step time", (line,), unit="s")] if line is not None else []
    return {
        "parts": parts,
        "bar": share_bar(shares, label) if parts else None,
        "step": duration(step),
        "rate": f"{1 / step:.3g}" if step > 0 else "",
        "sampled": _sampled(view),
        "layers": layers,
        "layer_total": duration(layer_total),
        "charts": charts,
    }


def _sampled(view: RunView) -> str:
    """How many steps were measured in parts, where that was not all of them."""
    if "step.forward" not in view.history.measured():
        return ""
    count, steps = view.history.series("step.forward").count, view.history.step
    return f"{whole_number(count)} of {whole_number(steps)}" if count < steps - 1 else ""


def _mean(view: RunView, name: str) -> float:
    """Mean over the recent samples: unlike medians, the means of the parts add up to the step."""
    if name not in view.history.measured():
        return float("nan")
    values = view.history.tail(name)[1][:, 0].astype(float)
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else float("nan")


def _layers(view: RunView) -> tuple[list[LayerTime], float]:
    """The layers that take most time, and the time of all layers together; medians over the recent samples."""
    forward, backward = _medians(view, "time.forward"), _medians(view, "time.backward")
    total = np.nan_to_num(forward) + np.nan_to_num(backward)
    whole = float(total.sum())
    if whole <= 0:
        return [], 0.0
    top = float(total.max())
    kinds = view.targets.layer_kinds
    rows = [
        LayerTime(
            view.targets.layers[index],
            kinds[index] if index < len(kinds) else "",
            duration(float(forward[index])),
            duration(float(backward[index])),
            f"{100 * total[index] / whole:.1f}\u202f%",
            bar(float(np.nan_to_num(forward)[index]) / top, float(np.nan_to_num(backward)[index]) / top),
        )
        for index in np.argsort(-total, kind="stable")[:LAYERS]
        if total[index] > 0
    ]
    return rows, whole


def _medians(view: RunView, name: str) -> Values:
    size = len(view.targets.layers)
    result = np.full(size, np.nan, np.float32)
    if name in view.history.measured():
        samples = view.history.tail(name)[1]  # (k, layers)
        for index in range(min(size, samples.shape[1])):
            result[index] = median(samples[:, index])
    return result
