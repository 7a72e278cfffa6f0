"""nndoctor: the doctor for neural network training.

Importing it imports no torch; the public names load what they need when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nndoctor.checkup_results import Checkup as Checkup
    from nndoctor.checkup_results import Examination as Examination
    from nndoctor.doctor import Doctor as Doctor
    from nndoctor.doctor import wrap as wrap
    from nndoctor.examinations.checkup import checkup as checkup
    from nndoctor.findings import Diagnosis as Diagnosis
    from nndoctor.findings import Evidence as Evidence
    from nndoctor.findings import Finding as Finding
    from nndoctor.findings import Fix as Fix
    from nndoctor.findings import Severity as Severity
    from nndoctor.findings import StopTraining as StopTraining
    from nndoctor.locate import Located as Located
    from nndoctor.locate import locate_nonfinite as locate_nonfinite
    from nndoctor.signals import Frame as Frame
    from nndoctor.signals import Signal as Signal
    from nndoctor.subscribers import Bundle as Bundle
    from nndoctor.subscribers import Subscriber as Subscriber
    from nndoctor.subscribers import Subscription as Subscription
    from nndoctor.subscribers import metric as metric

__version__ = "0.1.0"

_HOME = {
    "Checkup": "nndoctor.checkup_results",
    "Examination": "nndoctor.checkup_results",
    "checkup": "nndoctor.examinations.checkup",
    "Doctor": "nndoctor.doctor",
    "wrap": "nndoctor.doctor",
    "Diagnosis": "nndoctor.findings",
    "Evidence": "nndoctor.findings",
    "Finding": "nndoctor.findings",
    "Fix": "nndoctor.findings",
    "Severity": "nndoctor.findings",
    "StopTraining": "nndoctor.findings",
    "Located": "nndoctor.locate",
    "locate_nonfinite": "nndoctor.locate",
    "Frame": "nndoctor.signals",
    "Signal": "nndoctor.signals",
    "Bundle": "nndoctor.subscribers",
    "Subscriber": "nndoctor.subscribers",
    "Subscription": "nndoctor.subscribers",
    "metric": "nndoctor.subscribers",
}

__all__ = [
    "Bundle",
    "Checkup",
    "Diagnosis",
    "Doctor",
    "Evidence",
    "Examination",
    "Finding",
    "Fix",
    "Frame",
    "Located",
    "Severity",
    "Signal",
    "StopTraining",
    "Subscriber",
    "Subscription",
    "__version__",
    "checkup",
    "locate_nonfinite",
    "metric",
    "wrap",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'nndoctor' has no attribute {name!r}")
