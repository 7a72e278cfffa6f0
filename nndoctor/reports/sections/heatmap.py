"""Layers over time: one row per layer from input to output, one column per stretch of steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from nndoctor.reports.charts import number, whole_number
from nndoctor.reports.svg import HeatMap, heat_map, png, thinned
from nndoctor.reports.view import RunView, network_order

SIGNALS = {
    "grad.norm": "gradient norm",
    "update.ratio": "update ratio",
    "act.std": "activation spread",
    "act.dead_fraction": "dead units",
}
STATIC_COLUMNS = 300


class Picture(NamedTuple):
    """One signal's heat map: shown as a picture, drawn on a canvas where scripts run."""

    signal: str
    name: str
    map: HeatMap
    address: str
    summary: str
    rows: tuple[tuple[str, str, str, str], ...]
    names: tuple[str, ...]


def build(view: RunView) -> Mapping[str, Any] | None:
    order = network_order(view.targets)
    pictures = []
    for signal, name in SIGNALS.items():
        found = heat_map(view.history, signal, order)
        if found is not None:
            pictures.append(_picture(view, name, found))
    return {"pictures": pictures, "count": len(pictures[0].map.rows)} if pictures else None


def _picture(view: RunView, name: str, found: HeatMap) -> Picture:
    latest = view.history.latest(found.signal)
    rows = []
    for index in found.rows[:: max(1, len(found.rows) // 40)]:
        shades = found.levels[found.rows.index(index)]
        known = shades[shades != 255]
        low, high = (_value(found, int(known.min())), _value(found, int(known.max()))) if known.size else (float("nan"),) * 2
        newest = float(latest[index]) if latest is not None and index < len(latest) else float("nan")
        rows.append((view.targets.layers[index], number(newest), number(low), number(high)))
    scale = f"log scale from {number(found.low)} to {number(found.high)}" if found.log else "from 0 to 1"
    summary = (
        f"{name} of {len(found.rows)} layer{'s' * (len(found.rows) != 1)}, input at the top, steps {whole_number(found.edges[0])} to "
        f"{whole_number(found.edges[-1] - 1)} from left to right, {scale}."
    )
    return Picture(found.signal, name, found, png(thinned(found.levels, STATIC_COLUMNS)), summary, tuple(rows), tuple(view.targets.layers[index] for index in found.rows))


def _value(found: HeatMap, level: int) -> float:
    share = level / 253
    return found.low * (found.high / found.low) ** share if found.log else share
