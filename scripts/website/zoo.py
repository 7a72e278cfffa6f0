"""The lists of the zoo: every sick case by what is planted, and every healthy one with what a naive rule would call ill."""

from __future__ import annotations

from collections.abc import Iterator

from nndoctor.zoo.case import Case

from .diagnoses import outcome, planted
from .knowledge import Knowledge
from .text import prose, table


def zoo_lists(known: Knowledge) -> str:
    return "\n\n".join(_lists(known))


def _lists(known: Knowledge) -> Iterator[str]:
    sick = [case for case in known.cases if case.diagnosis is not None]
    healthy = [case for case in known.cases if case.diagnosis is None]
    yield f"### {len(sick)} sick cases, each beside its cured run"
    yield table(
        ("case", "diagnosis", "what is planted", "named first", "score: sick → treated"),
        ((f"`{c.name}`", f"[`{c.diagnosis}`](diagnoses/{c.diagnosis}.md)", planted(c), *outcome(known.runs.get(c.name, ()))) for c in sick),
    )
    yield f"### {len(healthy)} healthy cases"
    yield table(("case", "what it is", "alarms"), ((f"`{c.name}`", prose(c.description), alarms(c, known)) for c in healthy))


def alarms(case: Case, known: Knowledge) -> str:
    runs = known.runs.get(case.name, ())
    return f"{sum(bool(run.get('spoken')) for run in runs)} of {len(runs)} runs" if runs else "–"
