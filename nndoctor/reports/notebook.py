"""The panel in a notebook: one HTML output that is updated in place, at most once a second."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from io import StringIO
from typing import Protocol

from rich.console import Console
from rich.text import Text

from nndoctor.findings import Diagnosis
from nndoctor.reports.panel import MAX_ROWS, render_panel
from nndoctor.reports.panel_data import PanelState, with_diagnosis
from nndoctor.reports.text_safety import clean

UPDATE_INTERVAL = 1.0
"""Seconds between two updates."""

WIDTH = 100
_FRAME = '<pre style="font-family:monospace;line-height:1.25;overflow-x:auto;white-space:pre">{code}</pre>'


class Output(Protocol):
    """A place in the notebook that shows HTML and can be overwritten."""

    def update(self, html: str) -> None: ...


class NotebookDisplay:
    """The panel below the cell that trains."""

    def __init__(self, output: Output | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._output, self._clock = output, clock
        self._pid = os.getpid()
        self._state: PanelState | None = None
        self._updated_at = -1e9
        self._closed = False

    def due(self) -> bool:
        """True where a state handed over now would be shown; False: save the work of making one."""
        return not self._closed and self._clock() - self._updated_at >= UPDATE_INTERVAL

    def show(self, state: PanelState) -> None:
        if self._closed or os.getpid() != self._pid:
            return
        self._state = state
        if self.due():
            self._updated_at = self._clock()
            self._put(panel_html(state))

    def close(self, final: Diagnosis | None) -> None:
        """Leave the last state and the verdict in the notebook. Safe to call twice."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        state = self._state
        if final is not None:
            state = with_diagnosis(state or PanelState(name=""), final)
        if state is not None:
            self._put(panel_html(state, verdict=state.verdict))

    def _put(self, html: str) -> None:
        if self._output is None:
            self._output = CellOutput()
        self._output.update(html)


class CellOutput:
    """An output of the running cell, by IPython's display protocol."""

    def __init__(self) -> None:
        ipython = import_module("IPython.display")  # a notebook has it; nobody else needs it
        self._html = ipython.HTML
        self._handle = ipython.display(ipython.HTML(""), display_id=True)

    def update(self, html: str) -> None:
        if self._handle is not None:
            self._handle.update(self._html(html))


def panel_html(state: PanelState, verdict: str = "") -> str:
    """The panel as HTML with inline styles and without scripts; every name in it is escaped."""
    # In a kernel rich shows whatever is printed, wherever it is printed to; what is recorded is shown by `Output` alone.
    console = Console(
        file=StringIO(), record=True, width=WIDTH, height=24, force_terminal=True, force_jupyter=False, color_system="truecolor"
    )
    console.print(render_panel(state, WIDTH, MAX_ROWS))
    if verdict:
        console.print(Text(clean(verdict)), soft_wrap=True)
    return console.export_html(inline_styles=True, code_format=_FRAME)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook; asked of the IPython that is loaded, never loaded by us."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = get_ipython() if get_ipython is not None else None
    return shell is not None and type(shell).__name__ != "TerminalInteractiveShell" and hasattr(shell, "kernel")
