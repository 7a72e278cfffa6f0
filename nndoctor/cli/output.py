"""How the commands speak: answers on stdout, everything else on stderr, no string of a stranger obeyed.

Names of layers and runs come from user code: they are shown as rich Text, never as markup, and without control
characters.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

SEVERITY_STYLE = {"critical": "bold red", "error": "red", "warning": "yellow", "info": "cyan"}


class NobodyReads(Exception):
    """The other end of the pipe was closed (``nndoctor ls | head -1``); Typer would make findings of it, exit code 1."""


class UsageError(Exception):
    """The command cannot do what was asked for: says what was expected, what came, and what to do."""


def say(text: str | Text = "") -> None:
    """One answer on stdout; a plain string may have several lines."""
    _print([text], sys.stdout)


def say_lines(lines: Iterable[str | Text]) -> None:
    """An answer of many lines on stdout, in a fraction of the time that saying each by itself takes."""
    _print(lines, sys.stdout)


def say_json(data: Any) -> None:
    """`data` as the whole answer. NaN and infinities become strings: JSON has no such numbers."""
    from nndoctor.reports.json_report import finite

    say_raw(json.dumps(finite(data), indent=2) + "\n")


def say_raw(text: str) -> None:
    """`text` on stdout as it is, for programs to read."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise NobodyReads from error


def tell(text: str | Text) -> None:
    """Progress and warnings, on stderr."""
    _print([text], sys.stderr)


def tell_progress(text: str) -> None:
    """What is being done, on stderr, where a person is looking at it."""
    if sys.stderr.isatty():
        _print([text], sys.stderr)


def fail(text: str, prefix: str = "error: ") -> None:
    """Why it did not work, on stderr."""
    _print([prefix + text], sys.stderr)


def coloured() -> bool:
    """Whether the answer may have colours: as rich decides by terminal, ``NO_COLOR``, ``FORCE_COLOR`` and ``TERM``."""
    console = _console(sys.stdout)
    return console.color_system is not None and not console.no_color


def plain(text: object, style: str = "") -> Text:
    """A stranger's string as rich Text on one line, control and bidi characters stripped."""
    from nndoctor.reports.text_safety import safe_text

    return safe_text(text, style=style)


def columns(rows: Sequence[Sequence[str | Text]], gap: str = "  ") -> list[Text]:
    """`rows` as lines with aligned columns; the last column is not padded. Strings are taken as :func:`plain`."""
    from rich.text import Text

    cells = [[cell if isinstance(cell, Text) else plain(cell) for cell in row] for row in rows]
    widths = [max(cell.cell_len for cell in column) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        line = Text()
        for cell, width in zip(row[:-1], widths, strict=False):
            line.append_text(cell)
            line.append(" " * (width - cell.cell_len) + gap)
        line.append_text(row[-1])
        line.rstrip()
        lines.append(line)
    return lines


def count(number: int, thing: str) -> str:
    """``1 run``, ``3 runs``; ``1 000 steps``."""
    return f"{number:,}".replace(",", " ") + f" {thing}{'s' * (number != 1)}"


def _print(texts: Iterable[str | Text], stream: TextIO) -> None:
    console = _console(stream)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    for text in texts:
        for line in text.split("\n") if isinstance(text, str) else [text]:
            shown = plain(line) if isinstance(line, str) else line
            if not _speaks(encoding, shown.plain):
                shown = plain(shown.plain.encode(encoding, "replace").decode(encoding, "replace"))
            console.print(shown, soft_wrap=True)


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    class QuietConsole(Console):
        def on_broken_pipe(self) -> None:
            raise NobodyReads

    return QuietConsole(file=stream, highlight=False, markup=False, emoji=False)


def _speaks(encoding: str, text: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
