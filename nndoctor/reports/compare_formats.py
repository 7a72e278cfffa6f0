"""A comparison as JSON, Markdown, text for a terminal, and one HTML file that works offline."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from rich.text import Text

from nndoctor.findings import Finding
from nndoctor.reports import svg
from nndoctor.reports.compare import Comparison, Difference
from nndoctor.reports.html import asset, content_policy, environment, packed, script, stylesheet
from nndoctor.reports.json_report import finite, generator
from nndoctor.reports.markdown import code, escaped
from nndoctor.reports.plot import Trace, legend, plot
from nndoctor.reports.text_safety import clean

SCHEMA = "nndoctor-comparison/1"


def as_json(comparison: Comparison) -> str:
    """The comparison as indented JSON text, the curves included."""
    document = {"schema": SCHEMA, "generator": generator(), **as_dict(comparison)}
    return json.dumps(finite(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_dict(comparison: Comparison) -> dict[str, Any]:
    runs = [
        {"name": name, "grade": mark.letter, "status": view.status, "steps": view.diagnosis.steps, "verdict": view.diagnosis.verdict}
        for name, mark, view in zip(comparison.names, comparison.grades, comparison.views, strict=True)
    ]
    return {
        "verdict": comparison.verdict,
        "runs": runs,
        "findings": [{"rule": row.rule, "differs": row.differs, "runs": [_finding(f) for f in row.findings]} for row in comparison.rows],
        "settings": [{"name": s.name, "values": list(s.values)} for s in comparison.settings],
        "divergences": [
            {"run": name, "compared_steps": d.compared, "first": _difference(d.first), "parted": _difference(d.parted)}
            for name, d in zip(comparison.names[1:], comparison.divergences, strict=True)
        ],
        "curves": {
            chart.id.removeprefix("compare."): [{"run": line.label, "steps": line.steps.tolist(), "mean": line.mean.tolist()} for line in chart.lines]
            for chart in comparison.charts
        },
    }


def _finding(finding: Finding | None) -> dict[str, Any] | None:
    if finding is None:
        return None
    return {"severity": finding.severity.label, "first_step": finding.first_step, "targets": len(finding.targets), "explained_by": finding.explained_by}


def _difference(difference: Difference | None) -> dict[str, Any] | None:
    if difference is None:
        return None
    return {"step": difference.step, "signal": difference.signal, "target": difference.target, "values": [difference.first, difference.second]}


def told(finding: Finding | None) -> str:
    """A finding in a cell of a table: ``error since 40``, with its cause where it has one."""
    if finding is None:
        return "–"
    why = f", explained by {finding.explained_by}" if finding.explained_by else ""
    gone = ", over" if finding.state == "cleared" else ""
    return f"{finding.severity.label} since {finding.first_step}{gone}{why}"


def partings(comparison: Comparison) -> Iterator[str]:
    """For each run but the first, where it leaves the first."""
    for name, found in zip(comparison.names[1:], comparison.divergences, strict=True):
        if not found.compared:
            yield f"{name} has no step in common with {comparison.names[0]}"
            continue
        if found.first is None:
            yield f"{name} measured the same as {comparison.names[0]} in all {found.compared} steps of both"
            continue
        parted = f"; the losses part for good at {found.parted}" if found.parted is not None else "; the losses stay together"
        yield f"{name} first differs at {found.first}{parted}"


# -- Markdown -------------------------------------------------------------------------------------------------------


def as_markdown(comparison: Comparison) -> str:
    return "\n".join(_markdown(comparison)).rstrip() + "\n"


def _markdown(comparison: Comparison) -> Iterator[str]:
    yield from (f"# {escaped(' / '.join(comparison.names))}", "", f"**{escaped(comparison.verdict)}**", "")
    heads = ("", *(escaped(name) for name in comparison.names))
    runs = [("grade", *(f"{mark.letter}, {mark.word}" for mark in comparison.grades)), ("status", *(view.status for view in comparison.views))]
    runs.append(("verdict", *(escaped(view.diagnosis.verdict) for view in comparison.views)))
    yield from _table(heads, runs)
    if comparison.rows:
        yield from ("", "## Findings", "")
        yield from _table(heads, [(code(row.rule), *(escaped(told(f)) for f in row.findings)) for row in comparison.rows])
    if comparison.settings:
        yield from ("", "## Settings that differ", "")
        yield from _table(heads, [(escaped(s.name), *(escaped(v) for v in s.values)) for s in comparison.settings])
    yield from ("", "## Where they part", "")
    yield from (f"- {escaped(line)}" for line in partings(comparison))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|" + " --- |" * len(heads)
    yield from ("| " + " | ".join(row) + " |" for row in rows)


# -- terminal -------------------------------------------------------------------------------------------------------


def curves(comparison: Comparison, *, width: int, ascii: bool, colour: bool, most: int = 2) -> Iterator[Text]:
    """The first curves of the comparison, over each other, each with its legend."""
    for chart in comparison.charts[:most]:
        traces = [Trace(clean(line.label), line.steps, np.asarray(line.mean, float)) for line in chart.lines]
        yield Text(chart.title)
        yield from plot(traces, width=width, height=10, ascii=ascii, colour=colour)
        yield from legend(traces, colour)
        yield Text("")


# -- HTML -----------------------------------------------------------------------------------------------------------


def as_html(comparison: Comparison) -> str:
    """One page that is complete without its script, which makes the curves zoom and move their cursors together."""
    style, uplot, own = stylesheet() + "\n" + asset("compare.css"), asset("uplot-1.6.32.iife.min.js"), script()
    data = {"charts": [chart.data() for chart in comparison.charts], "maps": [], "bands": [], "layers": [], "findings": [], "layer_findings": {}}
    return environment().get_template("compare.html").render(
        c=comparison,
        told=told,
        partings=list(partings(comparison)),
        policy=content_policy([uplot, own], [style]),
        generator=generator(),
        style=Markup(style),
        uplot=Markup(uplot),
        script=Markup(own),
        licence=asset("uplot-LICENSE.txt"),
        data=Markup(packed(data)),
        svg=svg,
    )


RENDERERS = {"html": as_html, "json": as_json, "md": as_markdown}
"""Format to the function that renders a comparison as text."""
