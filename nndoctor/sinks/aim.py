"""Aim: curves in a context of their own, findings and verdict among the properties of the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nndoctor.findings import Diagnosis, Finding
from nndoctor.sinks.base import heading, sentence


class AimSink:
    """Tracks in an open ``aim.Run``.

    Args:
        run: the script's own run; it is never closed here.
    """

    name = "aim"

    def __init__(self, run: Any) -> None:
        self._run = run

    def signals(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._run.track(value, name=name, step=step, context={"source": "nndoctor"})

    def finding(self, finding: Finding) -> None:
        over = " (over)" if finding.state == "cleared" else ""
        self._run[f"nndoctor_{finding.diagnosis}"] = f"{heading(finding)}{over}: {sentence(finding)}"

    def close(self, diagnosis: Diagnosis) -> None:
        self._run["nndoctor_verdict"] = diagnosis.verdict
