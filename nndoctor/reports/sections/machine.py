"""The diagnosis once more, for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nndoctor.reports.json_report import diagnosis_document
from nndoctor.reports.view import RunView


def build(view: RunView) -> Mapping[str, Any]:
    return {"document": diagnosis_document(view, series=False)}
