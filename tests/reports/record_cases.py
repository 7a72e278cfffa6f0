"""Run records to watch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nndoctor.record import RecordWriter, RunFacts
from nndoctor.signals import Frame
from tests.reports.panel_cases import CAUSE, LAYERS, SECOND_CAUSE, SYMPTOM, SYMPTOM_OF_SYMPTOM, TARGETS


def frame(step: int) -> Frame:
    """Ten steps a second, of which the doctor took one hundredth."""
    gradients = np.linspace(0.1, 1.0, len(LAYERS))
    values = {
        "loss": np.array([2.0 * 0.999**step]),
        "lr": np.array([3e-3]),
        "grad.total_norm": np.array([1.5]),
        "grad.norm": gradients,
        "update.ratio": gradients * 1e-2,
        "step.time": np.array([0.1]),
        "step.doctor": np.array([0.001]),
    }
    return Frame(step, 1000.0 + step / 10, None, {name: value.astype(np.float32) for name, value in values.items()})


def writer(folder: Path, **facts: object) -> RecordWriter:
    return RecordWriter(folder, RunFacts("mini-a3f1", 1000.0, dict(facts)), TARGETS)


def sick_run(folder: Path) -> None:
    """A finished run of 300 steps with four findings, two of them root causes."""
    with writer(folder, planned_steps=1000, rules_loaded=58) as record:
        for step in range(1, 301):
            record.frame(frame(step))
        record.findings((CAUSE, SECOND_CAUSE, SYMPTOM, SYMPTOM_OF_SYMPTOM))
        record.event(120, "probe-failure", "activations: ValueError: no")
