"""What a sink is: something that takes the main curves and the findings of a run to where the user looks already."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from nndoctor.findings import Diagnosis, Finding, describe_fix
from nndoctor.signals import Frame

MAIN_SIGNALS = (
    "loss", "lr", "val.loss", "val.accuracy", "grad.total_norm", "grad.total_norm_preclip", "grad.nonfinite_total",
    "step.time", "step.data_wait_fraction", "step.skipped_total", "memory.process", "memory.accelerator",
)  # fmt: skip
"""Values of the whole run that are sent; trackers are for the overview, the run's own record has every layer."""

OVER_LAYERS = (("update.ratio", "median"), ("grad.norm", "median"), ("act.dead_fraction", "max"), ("act.saturated_fraction", "max"))
"""Values of layers that are sent as one number, called ``update.ratio.median``."""


class Sink(Protocol):
    """Where main curves and findings go; called in a thread of its own, never in the one that trains.

    Attributes:
        name: for reports of what failed.
    """

    name: str

    def signals(self, step: int, values: Mapping[str, float]) -> None:
        """Take the newest finite values by name, as they stood at `step` of the doctor's count."""

    def finding(self, finding: Finding) -> None:
        """Take a finding that has just begun, or one that is over (its state is ``cleared``)."""

    def close(self, diagnosis: Diagnosis) -> None:
        """Take the end of the run. The user's own run of the tracker stays open."""


def main_values(frame: Frame) -> dict[str, float]:
    """The main curves' values in a frame, finite ones only.

    >>> main_values(Frame(3, 0.0, None, {"loss": np.array([0.5]), "update.ratio": np.array([1e-3, 3e-3, np.nan])}))
    {'loss': 0.5, 'update.ratio.median': 0.002}
    """
    found: dict[str, float] = {}
    for name in MAIN_SIGNALS:
        if name in frame.values and len(frame.values[name]):
            found[name] = float(frame.values[name][0])
    for name, statistic in OVER_LAYERS:
        values = frame.values.get(name)
        if values is not None and values.size:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # measured at no layer: NaN, left out below
                over = np.nanmedian(values) if statistic == "median" else np.nanmax(values)
            found[f"{name}.{statistic}"] = float(over)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def sentence(finding: Finding) -> str:
    """A finding as one line: message, and the first remedy where there is one."""
    remedy = f" Remedy: {describe_fix(finding.fixes[0])}." if finding.fixes else ""
    return f"{finding.message or finding.diagnosis}.{remedy}"


def heading(finding: Finding) -> str:
    """``learning-rate-too-high (error, step 23)``."""
    return f"{finding.diagnosis} ({finding.severity.label}, step {finding.first_step})"
