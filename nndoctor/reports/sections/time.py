"""Time: where a step goes, and which layers take it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from nndoctor.reports.charts import Chart, Floats, duration, median, run_line, whole_number
from nndoctor.reports.icicle import Node, drawn, mean_times, summary, time_tree
from nndoctor.reports.sections.measured import overhead, overhead_share
from nndoctor.reports.svg import bar, share_bar
from nndoctor.reports.view import RunView

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
    tree = time_tree(view.history)
    known = _tiled(tree) if tree is not None else _cut(view, step)
    layers, layer_total = _layers(view)
    if not known and not layers:
        return None
    total = sum(seconds for _, _, seconds in known)
    parts = [Part(tone, name, duration(value), f"{100 * value / total:.1f}\u202f%" if total else "–") for tone, name, value in known]
    shares = [(tone, value / total if total else 0.0) for tone, _, value in known]
    label = ", ".join(f"{part.name} {part.share}" for part in parts)
    line = run_line(view.history, "step.time", "step time")
    charts = [Chart("steptime", "Step time", (line,), unit="s", span=(1, view.history.step), zeros=True)] if line is not None else []
    busy = [run_line(view.history, name, told) for name, told in (("busy.processor", "cores"), ("busy.accelerator", "accelerator, share"))]
    known_busy = tuple(each for each in busy if each is not None)
    if known_busy and max(len(each.steps) for each in known_busy) > 1:
        charts.append(Chart("busy", "Busy processor", known_busy, span=(1, view.history.step), note="cores that the process keeps busy"))
    return {
        "parts": parts,
        "bar": share_bar(shares, label) if parts and tree is None else None,
        "icicle": drawn(tree) if tree is not None else None,
        "summary": summary(tree) if tree is not None else label,
        "step": duration(step),
        "rate": f"{1 / step:.3g}" if step > 0 else "",
        "sampled": _sampled(view),
        "doctor": overhead(view) if tree is not None else "",
        "layers": layers,
        "layer_total": duration(layer_total),
        "charts": charts,
    }


def _tiled(tree: Node) -> list[tuple[str, str, float]]:
    """Class, name and seconds of the parts of the measured step."""
    return [(node.tone, node.name, node.seconds) for node in tree.children]


def _cut(view: RunView, step: float) -> list[tuple[str, str, float]]:
    """The same from the coarse parts that older records hold."""
    means = {name: _mean(view, name) for name in PARTS if name != DOCTOR}
    means[DOCTOR] = overhead_share(view) * step
    return [(*PARTS[name], means[name]) for name in PARTS if means[name] == means[name]]


def _sampled(view: RunView) -> str:
    """How many steps were measured in parts, where that was not all of them."""
    name = next((name for name in ("tile.span", "step.forward") if name in view.history.measured()), None)
    if name is None:
        return ""
    count, steps = view.history.series(name).count, view.history.step
    return f"{whole_number(count)} of {whole_number(steps)}" if count < steps - 1 else ""


def _mean(view: RunView, name: str) -> float:
    """Mean over the recent samples: unlike medians, the means of the parts add up to the step."""
    if name not in view.history.measured():
        return float("nan")
    values = view.history.tail(name)[1][:, 0].astype(float)
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else float("nan")


def _layers(view: RunView) -> tuple[list[LayerTime], float]:
    """The layers that take most time, and the time of all layers together; means over the recent samples, as above."""
    forward, backward = _by_layer(view, "time.forward"), _by_layer(view, "time.backward")
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


def _by_layer(view: RunView, name: str) -> Floats:
    result = np.full(len(view.targets.layers), np.nan)
    found = mean_times(view.history, name)[: len(result)]
    result[: len(found)] = found
    return result
