"""The root causes: what, since when, where, how sure, on what evidence, what to change, how to confirm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nndoctor.reports.sections.common import case
from nndoctor.reports.view import RunView


def build(view: RunView) -> Mapping[str, Any] | None:
    cases = [case(view, finding) for finding in view.diagnosis.root_causes]
    return {"cases": cases} if cases else None
