"""TensorBoard: curves under ``nndoctor/``, findings as text, in the log that the script writes anyway."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nndoctor.findings import Diagnosis, Finding
from nndoctor.sinks.base import heading, sentence


class TensorBoardSink:
    """Writes into an open ``SummaryWriter`` (of torch or of tensorboardX).

    Args:
        writer: the script's own writer; it is never closed here.
    """

    name = "tensorboard"

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._step = 0

    def signals(self, step: int, values: Mapping[str, float]) -> None:
        self._step = step
        for name, value in values.items():
            self._writer.add_scalar(f"nndoctor/{name}", value, step)

    def finding(self, finding: Finding) -> None:
        over = " is over" if finding.state == "cleared" else ""
        self._writer.add_text("nndoctor/findings", f"**{heading(finding)}**{over}  \n{sentence(finding)}", finding.last_step)

    def close(self, diagnosis: Diagnosis) -> None:
        self._writer.add_text("nndoctor/verdict", diagnosis.verdict, diagnosis.steps)
        self._writer.flush()
