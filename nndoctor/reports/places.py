"""Where in the user's own script a finding points to, for formats that mark lines of code."""

from __future__ import annotations

import re
from typing import NamedTuple

from nndoctor.findings import Finding
from nndoctor.reports.view import RunView

_NAMED = re.compile(r"\((?P<file>[^()]+?), line (?P<line>\d+)\)")
_LOOP = ("step", "backward", "forward", "loader")
"""Calls that stand for the training loop where a finding names no line of its own, the likeliest first."""


class CodePlace(NamedTuple):
    """A line of a file, and whether the finding is about that very line rather than about the loop around it."""

    file: str
    line: int
    exact: bool


def code_place(view: RunView, finding: Finding) -> CodePlace | None:
    """The line that a fix of the finding names, else a line of the training loop; None where no script was seen."""
    for fix in finding.fixes:
        named = _NAMED.search(fix.place)
        if named is not None:
            return CodePlace(named["file"], int(named["line"]), True)
    places = view.facts.get("places")
    if not isinstance(places, dict):
        return None
    for call in _LOOP:
        for place in places.get(call, ()):
            if isinstance(place, dict) and place.get("file") and isinstance(place.get("line"), int):
                return CodePlace(str(place["file"]), place["line"], False)
    return None
