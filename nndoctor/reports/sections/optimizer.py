"""Optimizer and schedule: the groups' settings, how the rates moved, what clipping and Adam's moments did."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from nndoctor.reports.charts import Chart, median, number, quantiles, run_line
from nndoctor.reports.view import RunView

SETTINGS = {
    "group.lr": "learning rate",
    "group.weight_decay": "weight decay",
    "group.momentum": "momentum / beta1",
    "group.beta2": "beta2",
    "group.eps": "eps",
}
SCHEDULE = ("lr.initial", "lr.peak", "lr.changes", "loop.lr_steps_per_epoch", "clip.max_norm", "step.skipped_total", "loop.optimizers")
PARAMETERS = (
    "param.update.ratio",
    "param.update.projection",
    "param.grad.snr",
    "param.grad.cosine",
    "param.adam.update_rms",
    "param.adam.eps_fraction",
    "param.adam.staleness",
    "param.weight.gain",
)
GROUP_CURVES = 6


def build(view: RunView) -> Mapping[str, Any] | None:
    history, groups = view.history, view.targets.groups
    measured = set(history.measured())
    latest = {name: history.latest(name) for name in SETTINGS if name in measured}
    titles = {name: SETTINGS[name] for name, values in latest.items() if values is not None and np.isfinite(values).any()}
    rows = [(group, [_at(latest[name], index) for name in titles]) for index, group in enumerate(groups)] if titles else []
    lines = [run_line(history, "group.lr", group, column) for column, group in enumerate(groups[:GROUP_CURVES])]
    drawn = tuple(line for line in lines if line is not None)
    clipping = _clipped_share(view)
    facts = [(history.catalogue[name].help, name, _newest(view, name)) for name in SCHEDULE if name in measured]
    spread = _parameter_spread(view)
    if not (rows or facts or spread):
        return None
    charts = [Chart("groups", "Learning rate of every group", drawn)] if len(drawn) > 1 else []
    return {"titles": list(titles.values()), "rows": rows, "charts": charts, "facts": facts, "clipped": clipping, "spread": spread}


def _at(values: Any, index: int) -> str:
    return number(float(values[index])) if values is not None and index < len(values) else "–"


def _newest(view: RunView, name: str) -> str:
    latest = view.history.latest(name)
    return number(float(latest[0])) if latest is not None else "–"


def _clipped_share(view: RunView) -> str:
    """Share of the recent samples in which clipping shortened the gradient; empty where nothing clips."""
    if not {"grad.total_norm_preclip", "clip.max_norm"} <= set(view.history.measured()):
        return ""
    limit = median(view.history.latest("clip.max_norm"))
    norms = view.history.tail("grad.total_norm_preclip")[1][:, 0]
    norms = norms[np.isfinite(norms)]
    if not norms.size or not math.isfinite(limit):
        return ""
    return f"{100 * float((norms > limit).mean()):.0f}\u202f%"


def _parameter_spread(view: RunView) -> list[tuple[str, str, str, list[str], str]]:
    """Per parameter signal: 10th percentile, median and 90th percentile, and the parameter at the top."""
    rows = []
    for name in PARAMETERS:
        latest = view.history.latest(name)
        if latest is None or not np.isfinite(latest).any():
            continue
        values = np.where(np.isfinite(latest), latest, np.nan).astype(float)
        low, middle, high = quantiles(values, (0.1, 0.5, 0.9)).tolist()
        top = int(np.nanargmax(values))
        owner = view.targets.params[top] if top < len(view.targets.params) else ""
        rows.append((name, view.history.catalogue[name].help, owner, [number(low), number(middle), number(high)], number(float(values[top]))))
    return rows
