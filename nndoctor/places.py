"""Where in the user's own script the loop makes its calls: file, line and the text of the line.

Read off the stack the first few times each call is seen, never again: remedies name these lines.
"""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

MOST_PLACES = 4
"""Places kept of one call; a GAN calls ``backward`` at two or three."""

LOOKS = 8
"""How often each call is looked up: enough for the two halves of an alternating loop."""

LOOPS_OF_OTHERS = ("lightning", "pytorch_lightning", "transformers", "ignite", "keras")
"""Frameworks with a loop of their own: between it and the script, ``before backward`` would be ``before trainer.fit()``."""

NOTEBOOK_CELL = "notebook cell"
"""Stands for the file of a cell, which is a number that nobody knows."""

_OURS = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class CodePlace:
    """One line of the user's script.

    Args:
        file: relative to the working folder where it lies in it; of a cell of a notebook, that it is one.
        line: counted from 1.
        code: text of the line, without indentation; empty where the source is not at hand.
    """

    file: str
    line: int
    code: str = ""

    def __str__(self) -> str:
        where = f"{self.file}, line {self.line}"
        return f"{self.code} ({where})" if self.code else where


class Places:
    """The places at which each kind of call was made, the first few times it was made."""

    def __init__(self) -> None:
        self._found: dict[str, list[tuple[str, int]]] = {}
        self._looks: dict[str, int] = {}

    def saw(self, call: str) -> None:
        """Note from where `call` is being made; free once it was seen often enough."""
        looks = self._looks.get(call, 0)
        if looks >= LOOKS:
            return
        self._looks[call] = looks + 1
        found = self._found.setdefault(call, [])
        if len(found) >= MOST_PLACES:
            return
        place = _users_line()
        if place is not None and place not in found:
            found.append(place)

    def all(self) -> Mapping[str, tuple[CodePlace, ...]]:
        """Every place found, by call, in the order in which they were first reached."""
        return {call: tuple(_code_place(*place) for place in places) for call, places in self._found.items() if places}

    def facts(self) -> dict[str, list[dict[str, str | int]]]:
        """The same for the record: plain mappings."""
        return {
            call: [{"file": p.file, "line": p.line, "code": p.code} for p in places] for call, places in self.all().items()
        }


def _code_place(path: str, line: int) -> CodePlace:
    code = linecache.getline(path, line).strip()
    if Path(path).parent.name.startswith("ipykernel_"):  # where a kernel pretends that its cells lie
        return CodePlace(NOTEBOOK_CELL, line, code[:120])
    try:
        inside = Path(path).resolve().is_relative_to(Path.cwd())
        shown = os.path.relpath(path) if inside else Path(path).name
    except OSError:  # the working folder is gone
        shown = Path(path).name
    return CodePlace(shown, line, code[:120])


def _users_line() -> tuple[str, int] | None:
    """File and line of the innermost frame that is neither ours, nor a library's, nor Python's own.

    None where a framework makes the call in its own loop.
    """
    for frame in _stack():
        path = frame.f_code.co_filename
        if any(f"-packages{os.sep}{name}{os.sep}" in path for name in LOOPS_OF_OTHERS):
            return None
        if _is_users(path):
            return path, frame.f_lineno
    return None


def _stack() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_users(path: str) -> bool:
    if path.startswith("<") and not path.startswith("<ipython"):
        return False
    if "site-packages" in path or "dist-packages" in path or path.startswith(_standard_library()):
        return False
    ours = path.startswith(str(_OURS))
    return not ours or path.startswith(str(_OURS / "zoo"))


def _standard_library() -> str:
    return os.path.dirname(os.__file__) + os.sep
