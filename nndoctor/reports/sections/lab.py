"""The lab: what deeper examinations of the run's model said, with their pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, NamedTuple

from nndoctor.reports.view import RunView


class Shown(NamedTuple):
    """One examination: its title, its verdict (the last line), the other lines, and its picture as a data URI."""

    title: str
    verdict: str
    lines: tuple[str, ...]
    picture: str


def build(view: RunView) -> Mapping[str, Any] | None:
    shown = [
        Shown(
            result.title,
            result.lines[-1] if result.lines else "",
            tuple(line for line in result.lines[:-1] if line),
            "" if result.picture is None else f"data:image/png;base64,{base64.b64encode(result.picture).decode()}",
        )
        for result in view.lab
    ]
    return {"shown": shown} if shown else None
