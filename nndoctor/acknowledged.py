"""Findings of a run that somebody has looked at and accepts, with the reason; kept in the run's folder, beside the record.

What is acknowledged stays in every report, marked with its reason; it no longer counts for exit codes and verdicts.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from nndoctor.findings import Finding

FILE = "acknowledged.json"


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """One rule, accepted: at which targets (patterns; empty: everywhere), why, and when that was said."""

    rule: str
    reason: str
    layers: tuple[str, ...] = ()
    at: float = 0.0

    def covers(self, finding: Finding) -> bool:
        """Whether all of the finding is accepted."""
        if finding.rule != self.rule:
            return False
        return not self.layers or (bool(finding.targets) and all(any(fnmatchcase(t, p) for p in self.layers) for t in finding.targets))


def read_acknowledged(folder: Path) -> tuple[Acknowledgement, ...]:
    """What is acknowledged in the run `folder`; what is no such list is taken for none."""
    try:
        plain = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return tuple(Acknowledgement(str(p["rule"]), str(p["reason"]), tuple(map(str, p["layers"])), float(p["at"])) for p in plain)
    except (OSError, ValueError, TypeError, KeyError):
        return ()


def acknowledge(folder: Path, rules: Sequence[str], reason: str, layers: Sequence[str] = ()) -> tuple[Acknowledgement, ...]:
    """Add `rules` to what is acknowledged in the run `folder`; the same rule at the same layers is told anew."""
    fresh = tuple(Acknowledgement(rule, reason, tuple(layers), time.time()) for rule in rules)
    kept = tuple(a for a in read_acknowledged(folder) if not any((a.rule, a.layers) == (f.rule, f.layers) for f in fresh))
    write_acknowledged(folder, (*kept, *fresh))
    return fresh


def write_acknowledged(folder: Path, all: Sequence[Acknowledgement]) -> None:
    """Replace the whole list, or leave it as it was where that fails. Raises OSError."""
    path = folder / FILE
    temporary = path.with_name(f".{FILE}.{os.getpid()}.part")
    temporary.write_text(json.dumps([asdict(item) for item in all], indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def marked(findings: Sequence[Finding], acknowledged: Sequence[Acknowledgement]) -> tuple[Finding, ...]:
    """The findings, those that are accepted marked with the reason."""
    if not acknowledged:
        return tuple(findings)
    return tuple(
        replace(finding, suppressed=next((a.reason for a in acknowledged if a.covers(finding)), None)) if finding.suppressed is None else finding
        for finding in findings
    )
