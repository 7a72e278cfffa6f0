"""Weights & Biases: curves under ``nndoctor/`` on an axis of their own, findings as alerts, the verdict in the summary."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from nndoctor.findings import Diagnosis, Finding, Severity
from nndoctor.sinks.base import heading, sentence

TITLE_LENGTH = 63
"""W&B refuses alerts with longer titles."""


class WandbSink:
    """Logs into a run that is under way.

    Values go into the row that the script commits next: a row of the doctor's own would move W&B's step on,
    and a script that logs with ``step=`` would lose what it logs.

    Args:
        run: what ``wandb.init`` returned; it is never finished here.
    """

    name = "wandb"

    def __init__(self, run: Any) -> None:
        self._run = run
        run.define_metric("nndoctor/step", hidden=True)
        run.define_metric("nndoctor/*", step_metric="nndoctor/step")

    @classmethod
    def active(cls) -> WandbSink | None:
        """A sink for ``wandb.run``; None where W&B is not in use."""
        run = getattr(sys.modules.get("wandb"), "run", None)
        return None if run is None or getattr(run, "disabled", False) else cls(run)

    def _tell(self, action: Callable[[Any], object]) -> None:
        """Do something with the run, unless the script has finished it meanwhile, which is its good right."""
        if getattr(sys.modules.get("wandb"), "run", None) is not self._run:
            return
        try:
            action(self._run)
        except Exception as error:
            if "is finished" not in str(error):
                raise

    def signals(self, step: int, values: Mapping[str, float]) -> None:
        row = {f"nndoctor/{name}": value for name, value in values.items()}
        self._tell(lambda run: run.log({**row, "nndoctor/step": step}, commit=False))

    def finding(self, finding: Finding) -> None:
        words = f"{finding.severity.label}, {finding.state}: {finding.message}"
        self._tell(lambda run: run.summary.update({f"nndoctor/{finding.diagnosis}": words}))
        if finding.severity > Severity.INFO and finding.state != "cleared":
            level = "ERROR" if finding.severity >= Severity.ERROR else "WARN"
            self._tell(lambda run: run.alert(title=heading(finding)[:TITLE_LENGTH], text=sentence(finding), level=level))

    def close(self, diagnosis: Diagnosis) -> None:
        self._tell(lambda run: run.summary.update({"nndoctor/verdict": diagnosis.verdict}))
