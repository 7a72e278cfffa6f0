"""MLflow: curves as metrics with a step of their own, findings and verdict as tags of the run."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from nndoctor.findings import Diagnosis, Finding
from nndoctor.sinks.base import heading, sentence

TAG_LENGTH = 5000
"""What every store of MLflow takes; some take more."""


class MlflowSink:
    """Logs into a run that is under way, by its id: the active run of MLflow is one per thread.

    Args:
        run_id: the run's; it is never ended here.
        client: an ``MlflowClient``; None: one for the tracking address in use.
    """

    name = "mlflow"

    def __init__(self, run_id: str, client: Any = None) -> None:
        self._run_id = run_id
        self._client = client if client is not None else import_module("mlflow").MlflowClient()

    @classmethod
    def active(cls) -> MlflowSink | None:
        """A sink for the run that is active in this thread; None where MLflow is not in use."""
        active_run = getattr(sys.modules.get("mlflow"), "active_run", None)
        run = active_run() if active_run is not None else None
        return None if run is None else cls(run.info.run_id)

    def signals(self, step: int, values: Mapping[str, float]) -> None:
        metric = import_module("mlflow.entities").Metric
        now = int(time.time() * 1000)
        self._client.log_batch(self._run_id, metrics=[metric(f"nndoctor/{k}", v, now, step) for k, v in values.items()])

    def finding(self, finding: Finding) -> None:
        over = " (over)" if finding.state == "cleared" else ""
        text = f"{heading(finding)}{over}: {sentence(finding)}"
        self._client.set_tag(self._run_id, f"nndoctor.{finding.diagnosis}", text[:TAG_LENGTH])

    def close(self, diagnosis: Diagnosis) -> None:
        self._client.set_tag(self._run_id, "nndoctor.verdict", diagnosis.verdict[:TAG_LENGTH])
