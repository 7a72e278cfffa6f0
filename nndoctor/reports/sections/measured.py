"""What was measured, how often, at what cost, and what was lost: the limits of everything else in the report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from nndoctor.reports.charts import median, quantity, whole_number
from nndoctor.reports.view import RunView


class Signal(NamedTuple):
    name: str
    per: str
    help: str
    newest: str
    samples: str


class Place(NamedTuple):
    """A line of the user's script that does a part of the loop."""

    does: str
    where: str
    code: str


SHORT = 34
"""Characters of a fact that has room in a column; longer ones get a line each."""

TOLD_ELSEWHERE = ("not_examined", "places", "layer_shapes", "taken_for", "overhead")
"""Facts with a table or a section of their own."""


def build(view: RunView) -> Mapping[str, Any]:
    history = view.history
    signals = [_signal(view, name) for name in history.measured()]
    rows = list(flat({name: value for name, value in view.facts.items() if name not in TOLD_ELSEWHERE}))
    return {
        "facts": [row for row in rows if len(row[1]) <= SHORT],
        "long_facts": [row for row in rows if len(row[1]) > SHORT],
        "places": list(places(view.facts.get("places"))),
        "shapes": list(shapes(view.facts.get("layer_shapes"))),
        "signals": signals,
        "unmeasured": [signal.name for signal in history.catalogue if signal.name not in history.measured()],
        "overhead": overhead(view),
        "sampling": sampling(view),
        "gaps": gaps(view),
        "probe_failures": view.diagnosis.probe_failures,
        "notes": view.notes,
        "problems": view.problems,
    }


def places(found: Any) -> Iterator[Place]:
    """The lines of the loop in the user's script, as the record tells them."""
    for does, lines in found.items() if isinstance(found, Mapping) else ():
        for line in lines if isinstance(lines, (list, tuple)) else (lines,):
            if isinstance(line, Mapping) and "line" in line:
                yield Place(str(does).replace("_", " "), f"{line.get('file', '')}:{line['line']}", str(line.get("code", "")))


def shapes(found: Any) -> Iterator[tuple[str, str, str]]:
    """Layer, shape of what it reads, shape of what it returns."""
    for layer, pair in found.items() if isinstance(found, Mapping) else ():
        told = [" x ".join(str(size) for size in shape) if isinstance(shape, (list, tuple)) else "–" for shape in pair or ()]
        reads, returns = [*told, "–", "–"][:2]
        yield str(layer), reads, returns


def overhead(view: RunView) -> str:
    """Share of the training time that the doctor took, in words; empty where it is not known."""
    share = overhead_share(view)
    return f"{100 * share:.2g}\u202f% of the step time" if share == share else ""


def overhead_share(view: RunView) -> float:
    """What the doctor itself said, else its own time in the steps where it was measured over the time of all steps."""
    said = view.facts.get("overhead")
    if isinstance(said, float) and 0 <= said < math.inf:
        return said
    if not {"step.doctor", "step.time"} <= set(view.history.measured()):
        return math.nan
    steps, own = view.history.tail("step.doctor")
    times, whole = view.history.tail("step.time")
    both = times >= steps[0] if len(steps) else np.zeros(len(times), bool)
    total = float(np.nansum(whole[both].astype(float)))
    return float(np.nansum(own.astype(float))) / total if total > 0 else math.nan


def sampling(view: RunView) -> str:
    """How often the expensive measurements were made."""
    name = next((name for name in ("grad.norm", "update.ratio", "act.std") if name in view.history.measured()), None)
    if name is None:
        return ""
    count, steps = view.history.series(name).count, view.history.step
    return f"layers were measured at {whole_number(count)} of {whole_number(steps)} steps" if count < steps else "layers were measured at every step"


def gaps(view: RunView) -> str:
    """The longest stretch without a loss, where it is much longer than usual."""
    if "loss" not in view.history.measured():
        return ""
    steps = view.history.whole("loss").steps
    distances = np.diff(steps)
    if not distances.size or distances.max() <= max(2.0, 4 * float(np.median(distances))):
        return ""
    place = int(distances.argmax())
    return f"nothing between steps {whole_number(steps[place])} and {whole_number(steps[place + 1])}"


def _signal(view: RunView, name: str) -> Signal:
    signal = view.history.catalogue[name]
    latest = view.history.latest(name)
    value = median(latest) if latest is not None else float("nan")
    newest = quantity(value, signal.unit) + ("" if signal.per == "run" else " (median)")
    return Signal(name, signal.per, signal.help, newest, whole_number(view.history.series(name).count))


def flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Facts as (name, text) rows; a group of facts becomes one row, ``versions``: ``torch 2.13, python 3.12``."""
    for key, value in facts.items():
        name = f"{prefix}{key}".replace("_", " ")
        if not isinstance(value, Mapping):
            text = plain(name, value)
            if text:
                yield {"seconds": "duration"}.get(name, name), text
            continue
        deeper = {k: v for k, v in value.items() if isinstance(v, Mapping)}
        told = [(str(k).replace("_", " "), plain(f"{name} {k}", v)) for k, v in value.items() if k not in deeper]
        if told:
            yield name.replace("spent seconds", "time spent"), ", ".join(f"{k} {text}" for k, text in told if text)
        yield from flat(deeper, f"{name} ")


def plain(name: str, value: Any) -> str:
    """The value of a fact as people write it; empty where it says nothing."""
    if value is None or value == "" or value == []:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)
    if name == "started" and isinstance(value, (int, float)):
        return _date(float(value))
    if isinstance(value, float):
        kind = "s" if "seconds" in name else "fraction" if name.startswith(("overhead", "budget")) else ""
        return quantity(value, kind)
    return whole_number(value) if isinstance(value, int) and abs(value) >= 10_000 else str(value)


def _date(seconds: float) -> str:
    from datetime import datetime, timezone

    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M UTC") if seconds > 0 else "–"
