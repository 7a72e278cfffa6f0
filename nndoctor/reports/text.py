"""The report as plain text, for a terminal, a log or a mail."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from nndoctor.findings import Finding, counted, rules_that_looked, taken_for
from nndoctor.reports.charts import quantity, whole_number
from nndoctor.reports.sections.common import Case, case, since, telling, told_first
from nndoctor.reports.sections.measured import overhead, sampling
from nndoctor.reports.text_safety import clean
from nndoctor.reports.view import RunView, grade, spelled

WIDTH = 100


def render(view: RunView) -> str:
    """The report as text of at most 100 columns, ending in the one-line verdict."""
    return "\n".join(line.rstrip() for line in _lines(view)) + "\n"


def _lines(view: RunView) -> Iterator[str]:
    mark = grade(view.diagnosis)
    yield f"{clean(view.name)}: {mark.letter}, {mark.word}"
    yield f"{view.status}, {whole_number(view.diagnosis.steps)} steps, {counted(view.targets.modules, 'layer')}, {rules_that_looked(view.diagnosis)}"
    said = taken_for(view.facts)
    if said:
        yield from _wrapped(f"taken for: {'; '.join(said)}", "", "  ")
    for position, finding in enumerate(view.diagnosis.root_causes, 1):
        yield ""
        yield from _cause(case(view, finding), position)
    others = [f for f in view.diagnosis.findings if f not in view.diagnosis.root_causes]
    if others:
        yield from ("", "Other findings")
        for finding in others:
            yield from _wrapped(_other(view, finding), "  - ", "    ")
    if view.before_after is not None:
        yield from ("", f"After {clean(view.before_after.label)}")
        yield from _wrapped(view.before_after.diagnosis.verdict, "  ", "  ")
    yield from _limits(view)
    yield from ("", clean(view.diagnosis.verdict))


def _cause(item: Case, position: int) -> Iterator[str]:
    finding = item.finding
    yield from _wrapped(f"{position}. {item.title} [{item.tone}, {finding.confidence} confidence] {item.since}", "", "   ")
    if item.message:
        yield from _wrapped(item.message, "   ", "   ")
    if finding.targets:
        shown = ", ".join(clean(name) for name in finding.targets[:6])
        rest = len(finding.targets) - 6
        yield from _wrapped(f"where: {shown}" + (f" and {rest} more" if rest > 0 else ""), "   ", "     ")
    for evidence in told_first(finding.evidence):
        limit = "" if evidence.threshold is None else f" ({evidence.comparison or 'limit'} {quantity(evidence.threshold, evidence.unit)})"
        place = f" at {evidence.target}" if evidence.target else ""
        value, when = telling(evidence)
        yield from _wrapped(f"evidence: {evidence.signal}{place} = {value}{limit}{' ' * bool(when)}{when}", "   ", "     ")
    for reason in finding.against:
        yield from _wrapped(f"against it: {reason}", "   ", "     ")
    for position, remedy in enumerate(item.remedies):
        changes = ", ".join(f"{c.setting}: {c.before + ' -> ' if c.before else ''}{c.after}" for c in remedy.changes)
        yield from _wrapped(f"{'alternative' if position else 'fix'}: {remedy.title}{': ' + changes if changes else ''} ({remedy.confidence} confidence)", "   ", "     ")
    if item.symptoms:
        yield from _wrapped("explains: " + ", ".join(symptom.rule for symptom in item.symptoms), "   ", "     ")
    if item.docs is not None and item.docs.confirm:
        yield from _wrapped(f"confirm: {item.docs.confirm}", "   ", "     ")
    for label, causes in item.others:
        yield from _wrapped(f"{label}: {causes}", "   ", "     ")
    yield from _wrapped(f"to silence it: {item.silence}", "   ", "     ")


def _other(view: RunView, finding: Finding) -> str:
    state = f", acknowledged: {finding.suppressed}" if finding.suppressed else ""
    cause = f", explained by {finding.explained_by}" if finding.explained_by else ""
    return f"{spelled(finding.diagnosis)} [{finding.severity.label}] {since(finding)}{cause}{state}"


def _limits(view: RunView) -> Iterator[str]:
    """What the report cannot know: rules that were not judged, probes that failed, what could not be read."""
    told = [text for text in (overhead(view), sampling(view)) if text]
    if told:
        yield from ("", "Measured: " + "; ".join(told))
    yield from _not_judged(view)
    for failure in view.diagnosis.probe_failures:
        yield from _wrapped(f"probe {failure.probe} was dismissed at step {failure.step}: {failure.error}", "", "  ")
    for problem in view.problems:
        yield from _wrapped(f"could not be read: {problem}", "", "  ")


def _not_judged(view: RunView) -> Iterator[str]:
    """The rules that could not be judged: by name where a cause was found, with the reasons where they may be why none was."""
    unjudged = view.diagnosis.not_examined
    if not unjudged:
        return
    unlooked = f"{counted(len(unjudged), 'rule')} could not be judged"
    if view.diagnosis.root_causes:
        yield ""
        they = "it looks" if len(unjudged) == 1 else "they look"
        yield from _wrapped(f"{unlooked}, as what {they} at was not there to be measured (--format md says what): {', '.join(item.rule for item in unjudged)}", "", "  ")
        return
    yield from ("", unlooked)
    for item in unjudged:
        yield from _wrapped(f"{item.rule}: {item.reason}", "  - ", "    ")


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(clean(text), WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False) or [first]
