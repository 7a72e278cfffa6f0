"""Trackio: curves under ``nndoctor/`` beside the script's own rows, findings as alerts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from nndoctor.findings import Diagnosis, Finding, Severity
from nndoctor.sinks.base import heading, sentence


class TrackioSink:
    """Logs into a run that is under way, at the step of the script's last row, so that its own count stays as it is.

    Args:
        run: what ``trackio.init`` returned; it is never finished here.
    """

    name = "trackio"

    def __init__(self, run: Any) -> None:
        self._run = run

    @classmethod
    def active(cls) -> TrackioSink | None:
        """A sink for the run that is active in this thread; None where Trackio is not in use."""
        variables = sys.modules.get("trackio.context_vars")
        run = variables.current_run.get() if variables is not None else None
        return None if run is None else cls(run)

    def signals(self, step: int, values: Mapping[str, float]) -> None:
        row = {f"nndoctor/{name}": value for name, value in values.items()}
        last_row = max(getattr(self._run, "_next_step", 1) - 1, 0)
        self._run.log({**row, "nndoctor/step": step}, step=last_row)

    def finding(self, finding: Finding) -> None:
        if finding.severity > Severity.INFO and finding.state != "cleared":
            level = import_module("trackio").AlertLevel
            severe = finding.severity >= Severity.ERROR
            self._run.alert(heading(finding), sentence(finding), level=level.ERROR if severe else level.WARN)

    def close(self, diagnosis: Diagnosis) -> None:
        """Nothing to do: the alerts have told it, and Trackio has no place for a closing word."""
