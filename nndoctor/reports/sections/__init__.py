"""The sections of the report, in the order a reader meets them.

A section is one file with ``build(view)``, which turns the view into plain values (None: nothing to show, no
section), one template of the same name, and one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from nndoctor.reports.sections import (
    causes,
    comparison,
    data,
    docs,
    findings,
    heatmap,
    lab,
    layers,
    machine,
    measured,
    optimizer,
    own,
    rules,
    time,
    timeline,
    verdict,
)
from nndoctor.reports.view import RunView


class Section(NamedTuple):
    """One section: its anchor (also the name of its template), its heading, and what fills it."""

    id: str
    heading: str
    build: Callable[[RunView], Mapping[str, Any] | None]


SECTIONS: tuple[Section, ...] = (
    Section("verdict", "Verdict", verdict.build),
    Section("causes", "Root causes", causes.build),
    Section("comparison", "Before and after", comparison.build),
    Section("timeline", "Timeline", timeline.build),
    Section("own", "Metrics of your own", own.build),
    Section("heatmap", "Layers over time", heatmap.build),
    Section("layers", "Layers", layers.build),
    Section("optimizer", "Optimizer and schedule", optimizer.build),
    Section("time", "Time", time.build),
    Section("lab", "Examined in the lab", lab.build),
    Section("data", "Data", data.build),
    Section("findings", "All findings", findings.build),
    Section("rules", "Rules", rules.build),
    Section("measured", "What was measured", measured.build),
    Section("docs", "Rule notes", docs.build),
    Section("machine", "Machine-readable", machine.build),
)
