"""All findings: root causes, the symptoms they explain, remarks, and what was acknowledged or has cleared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nndoctor.reports.sections.common import case
from nndoctor.reports.view import RunView


def build(view: RunView) -> Mapping[str, Any] | None:
    cases = [case(view, finding) for finding in view.diagnosis.findings]
    return {"cases": cases} if cases else None
