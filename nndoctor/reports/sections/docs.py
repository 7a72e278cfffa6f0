"""The notes of the rules that spoke: what they check, why it matters, usual causes, known problems, references."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nndoctor.reports.view import RunView


def build(view: RunView) -> Mapping[str, Any] | None:
    used = dict.fromkeys(finding.rule for finding in view.diagnosis.findings)
    found = [view.rule_docs[rule] for rule in used if rule in view.rule_docs]
    return {"docs": found} if found else None
