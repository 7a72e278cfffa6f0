"""A training that the doctor looks on, and what it said about it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from torch.optim import Optimizer

import nndoctor
from nndoctor.findings import Severity


@dataclass
class Said:
    """What the doctor said above ``info``, known when the training has ended.

    Args:
        causes: diagnoses of the root causes.
        steps: at which each of the findings began.
    """

    causes: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()


@contextmanager
def attended(model: nn.Module, optimizer: Optimizer) -> Iterator[Said]:
    """Attach the doctor, without a panel and with a record that is thrown away; the same steps are measured every time."""
    said = Said()
    with tempfile.TemporaryDirectory() as folder:
        doctor = nndoctor.wrap(model, optimizer, ui="off", run_dir=Path(folder) / "run", cadence=1, sinks="off")
        try:
            yield said
        finally:
            doctor.close()
        diagnosis = doctor.diagnosis()
    loud = [f for f in diagnosis.findings if f.severity > Severity.INFO and f.suppressed is None]
    said.steps = tuple(f.first_step for f in loud)
    said.causes = tuple(dict.fromkeys(f.diagnosis for f in diagnosis.root_causes if f.severity > Severity.INFO))
