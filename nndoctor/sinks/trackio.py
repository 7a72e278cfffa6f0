"""Trackio: curves under ``nndoctor/`` beside the script's own rows, findings as alerts."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from nndoctor.findings import Diagnosis, Finding, Severity
from nndoctor.sinks.base import heading, sentence

MOST_WAITING = 600
"""Rows that wait for the script's first one; the doctor sends about one a second."""


class TrackioSink:
    """Logs into a run that is under way, at the step of the script's last row, so that its own count stays as it is.

    Until the script has logged its first row there is no such step: the newest rows wait for it, or for the end.

    Args:
        run: what ``trackio.init`` returned; it is never finished here.
    """

    name = "trackio"

    def __init__(self, run: Any) -> None:
        self._run = run
        self._waiting: deque[Mapping[str, float]] = deque(maxlen=MOST_WAITING)

    @classmethod
    def active(cls) -> TrackioSink | None:
        """A sink for the run that is active in this thread; None where Trackio is not in use."""
        variables = sys.modules.get("trackio.context_vars")
        run = variables.current_run.get() if variables is not None else None
        return None if run is None else cls(run)

    def signals(self, step: int, values: Mapping[str, float]) -> None:
        self._waiting.append({**{f"nndoctor/{name}": value for name, value in values.items()}, "nndoctor/step": step})
        if getattr(self._run, "_next_step", 1) > 0:
            self._send()

    def _send(self) -> None:
        while self._waiting:
            last_row = max(getattr(self._run, "_next_step", 1) - 1, 0)
            self._run.log(dict(self._waiting.popleft()), step=last_row)

    def finding(self, finding: Finding) -> None:
        if finding.severity > Severity.INFO and finding.state != "cleared":
            level = import_module("trackio").AlertLevel
            severe = finding.severity >= Severity.ERROR
            self._run.alert(heading(finding), sentence(finding), level=level.ERROR if severe else level.WARN)

    def close(self, diagnosis: Diagnosis) -> None:
        """Send what waited for a row that never came; the alerts have told the rest, there is no place for a closing word."""
        self._send()
