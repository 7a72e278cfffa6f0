"""The lab: what deeper examinations of the run's model said, with their pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, NamedTuple

from nndoctor.reports.view import RunView


class Shown(NamedTuple):
    """One examination: its title, its verdict (the last line), the other lines, its picture as a data URI, and which landscape is its."""

    title: str
    verdict: str
    lines: tuple[str, ...]
    picture: str
    relief: int | None


def build(view: RunView) -> Mapping[str, Any] | None:
    reliefs = [result.relief for result in view.lab if result.relief is not None]
    numbers = iter(range(len(reliefs)))
    shown = [
        Shown(
            result.title,
            result.lines[-1] if result.lines else "",
            tuple(line for line in result.lines[:-1] if line),
            "" if result.picture is None else f"data:image/png;base64,{base64.b64encode(result.picture).decode()}",
            None if result.relief is None else next(numbers),
        )
        for result in view.lab
    ]
    return {"shown": shown, "reliefs": [relief.data() for relief in reliefs]} if shown else None
