"""Which live display a process gets: the footer of its terminal, lines in a log, a notebook output, or none."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Literal, Protocol, TextIO, TypeAlias, get_args

from nndoctor.findings import Diagnosis
from nndoctor.reports.footer import FooterDisplay, StreamTty, reset_terminal, rows_to_spare
from nndoctor.reports.lines import LinesDisplay
from nndoctor.reports.notebook import NotebookDisplay, in_notebook
from nndoctor.reports.panel_data import PanelState

__all__ = [
    "Display",
    "FooterDisplay",
    "LinesDisplay",
    "NoDisplay",
    "NotebookDisplay",
    "Ui",
    "choose_display",
    "reset_terminal",
]

Ui: TypeAlias = Literal["auto", "footer", "lines", "off", "notebook"]

FOOTER_LINES = 16
"""Lines a terminal must have for a footer that nobody asked for."""


class Display(Protocol):
    """Shows a run while it trains. No method raises because of the terminal, and none keeps the training waiting."""

    def due(self) -> bool:
        """False where a state handed over now would not be shown anyway: save the work of making one."""

    def show(self, state: PanelState) -> None:
        """Show `state`; call it as often as you like, from any one thread."""

    def close(self, final: Diagnosis | None) -> None:
        """Leave the last word and let go of the terminal. Safe to call twice."""


class NoDisplay:
    """Shows nothing."""

    def due(self) -> bool:
        return False

    def show(self, state: PanelState) -> None:
        pass

    def close(self, final: Diagnosis | None) -> None:
        pass


def choose_display(
    ui: Ui = "auto", stream: TextIO | None = None, rank: int = 0, *, environ: Mapping[str, str] | None = None
) -> Display:
    """The display for this process.

    Args:
        ui: ``auto`` chooses: nothing on other ranks than 0, an HTML output in a notebook, a footer in a terminal of
            16 lines or more, lines everywhere else (no terminal, ``TERM=dumb``, CI). A ``footer`` that was asked for
            where there is no terminal becomes lines.
        stream: where to; by default the terminal behind stderr or stdout, and stderr for lines.
        rank: which process of a distributed run this is. Only lines that were asked for come from other ranks than 0.
        environ: the environment, for ``CI`` and ``TERM``.

    Raises:
        ValueError: `ui` is none of the five.
    """
    if ui not in get_args(Ui):
        raise ValueError(f"unknown ui {ui!r}; expected one of {', '.join(get_args(Ui))}")
    if ui == "off" or (rank != 0 and ui != "lines"):
        return NoDisplay()
    if ui == "notebook" or (ui == "auto" and in_notebook()):
        return NotebookDisplay()
    tty = None if ui == "lines" else _capable_tty(stream, os.environ if environ is None else environ, wanted=ui == "footer")
    if tty is not None:
        return FooterDisplay(tty)
    return LinesDisplay(None if stream is sys.stderr else stream)  # looked up for each line: a live display replaces it


def _capable_tty(stream: TextIO | None, environ: Mapping[str, str], *, wanted: bool) -> StreamTty | None:
    """The terminal to draw a footer on, None if there is none that can or should have one."""
    if os.name == "nt" or environ.get("TERM", "").lower() in ("dumb", "unknown"):
        return None
    if environ.get("CI", "").lower() not in ("", "0", "false") and not wanted:
        return None
    # Lines go to stderr, a footer may also stand on the terminal of stdout where stderr goes to a file.
    for candidate in (sys.stderr, sys.stdout) if stream is None or stream is sys.stderr else (stream,):
        if candidate is None or not _is_terminal(candidate):
            continue
        tty = StreamTty(candidate)
        size = tty.size()
        return tty if rows_to_spare(size) and (wanted or size.lines >= FOOTER_LINES) else None
    return None


def _is_terminal(stream: TextIO) -> bool:
    try:
        return os.isatty(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return False
