"""The report as Markdown, for an issue, a pull request or a job summary."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from nndoctor.findings import Finding, counted, rules_that_looked, taken_for
from nndoctor.reports.charts import number, quantity, run_line, spread_line, whole_number
from nndoctor.reports.sections.common import Case, case, since, telling, told_first, where
from nndoctor.reports.sections.measured import flat, overhead, sampling
from nndoctor.reports.text_safety import clean
from nndoctor.reports.view import RunView, grade, spelled

_SPECIAL = re.compile(r"[\\`*_{}\[\]()#|~<>&@]|(?<=:)/(?=/)|^[-+=]|^\d+[.)]")
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "@": "&#64;"}


def escaped(text: object) -> str:
    """`text` on one line as literal Markdown: no markup, no HTML, no link, no mention, whatever it holds.

    >>> escaped("blocks[/x] <b>")
    'blocks\\\\[/x\\\\] &lt;b&gt;'
    """

    def literal(found: re.Match[str]) -> str:
        return _ENTITIES.get(found[0]) or f"{found[0][:-1]}\\{found[0][-1]}"

    return _SPECIAL.sub(literal, clean(text))


def code(text: object) -> str:
    """`text` as a code span, with a fence longer than any run of backticks in it; safe in a table cell."""
    plain = clean(text) or " "
    fence = "`" * (max((len(run) for run in re.findall("`+", plain)), default=0) + 1)
    pad = " " if "`" in plain[:1] + plain[-1:] else ""
    return f"{fence}{pad}{plain}{pad}{fence}".replace("|", "\\|")


def render(view: RunView) -> str:
    """The report as GitHub-flavoured Markdown."""
    return "\n".join(_lines(view)).rstrip() + "\n"


def _lines(view: RunView) -> Iterator[str]:
    mark = grade(view.diagnosis)
    yield f"# {escaped(view.name)}: {mark.letter}, {mark.word}"
    yield from ("", f"**{escaped(view.diagnosis.verdict)}**", "")
    yield f"{view.status}, {whole_number(view.diagnosis.steps)} steps, {counted(view.targets.modules, 'layer')}, {rules_that_looked(view.diagnosis)}"
    said = taken_for(view.facts)
    if said:
        yield from ("", f"Taken for: {escaped('; '.join(said))}")
    roots = view.diagnosis.root_causes
    if roots:
        yield from ("", "## Root causes")
        for finding in roots:
            yield from _cause(case(view, finding))
    others = [f for f in view.diagnosis.findings if f not in roots]
    if others:
        yield from ("", "## Other findings", "")
        yield from _table(("severity", "finding", "when", "where", "explained by"), [_row(view, finding) for finding in others])
    yield from _course(view)
    if view.before_after is not None:
        yield from ("", f"## After {escaped(view.before_after.label)}", "", escaped(view.before_after.diagnosis.verdict))
    yield from _limits(view)


def _cause(item: Case) -> Iterator[str]:
    finding = item.finding
    yield from ("", f"### {escaped(item.title)}", "")
    yield f"{item.tone}, {finding.confidence} confidence, {item.since}, {code(finding.rule)}"
    if item.message:
        yield from ("", escaped(item.message))
    if finding.targets:
        shown = ", ".join(code(name) for name in finding.targets[:8])
        yield from ("", f"Where: {shown}" + (f" and {len(finding.targets) - 8} more" if len(finding.targets) > 8 else ""))
    if finding.evidence:
        yield ""
        rows = [
            (
                code(e.signal),
                code(e.target) if e.target else "the run",
                " ".join(telling(e)).strip(),
                f"{escaped(e.comparison)} {quantity(e.threshold, e.unit)}" if e.threshold is not None else "",
            )
            for e in told_first(finding.evidence)
        ]
        yield from _table(("signal", "where", "value", "limit"), rows)
    for reason in finding.against:
        yield from ("", f"Against it: {escaped(reason)}")
    for position, remedy in enumerate(item.remedies):
        yield from ("", f"{'Alternative' if position else 'Fix'}: {escaped(remedy.title)} ({remedy.confidence} confidence)")
        if remedy.changes:
            yield from ("", "```diff")
            for change in remedy.changes:
                if change.before:
                    yield f"- {clean(change.setting)}: {clean(change.before)}"
                yield f"+ {clean(change.setting)}: {clean(change.after)}"
            yield "```"
    if item.symptoms:
        yield from ("", "Explains: " + ", ".join(code(symptom.rule) for symptom in item.symptoms))
    if item.docs is not None and item.docs.confirm:
        yield from ("", f"How to confirm: {escaped(item.docs.confirm)}")
    for label, causes in item.others:
        yield from ("", f"{label[:1].upper()}{label[1:]}: {escaped(causes)}")
    yield from ("", f"To silence it: {code(item.silence)}")


def _row(view: RunView, finding: Finding) -> tuple[str, ...]:
    when = since(finding) + (f", acknowledged: {finding.suppressed}" if finding.suppressed else "")
    cause = code(finding.explained_by) if finding.explained_by else ""
    return finding.severity.label, escaped(spelled(finding.diagnosis)), escaped(when), escaped(where(finding)), cause


def _course(view: RunView) -> Iterator[str]:
    """First, newest, lowest and highest value of the curves that matter most."""
    lines = [
        run_line(view.history, "loss"),
        run_line(view.history, "val.loss", "validation loss"),
        run_line(view.history, "lr", "learning rate"),
        run_line(view.history, "grad.total_norm", "gradient norm"),
        spread_line(view.history, "update.ratio", "update ratio, median layer"),
    ]
    rows = [
        (line.label, number(line.finite[0]), number(line.finite[-1]), number(line.finite.min()), number(line.finite.max()))
        for line in lines
        if line is not None and line.finite.size
    ]
    if rows:
        yield from ("", "## Course", "")
        yield from _table(("", "first", "newest", "lowest", "highest"), rows)


def _limits(view: RunView) -> Iterator[str]:
    yield from ("", "## What was measured", "")
    for name, value in [("cost of the doctor", overhead(view)), ("sampling", sampling(view)), *flat(view.facts)]:
        if value:
            yield f"- {escaped(name)}: {escaped(value)}"
    for failure in view.diagnosis.probe_failures:
        yield f"- probe {code(failure.probe)} was dismissed at step {failure.step}: {escaped(failure.error)}"
    for problem in view.problems:
        yield f"- could not be read: {escaped(problem)}"
    for item in view.diagnosis.not_examined:
        yield f"- {code(item.rule)} could not be judged: {escaped(item.reason)}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|" + " --- |" * len(heads)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
