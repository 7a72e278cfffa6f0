"""The findings as workflow commands of GitHub Actions, which show them beside the lines of a pull request."""

from __future__ import annotations

from collections.abc import Iterator

from nndoctor.findings import Finding, Severity, describe_fix
from nndoctor.reports.places import code_place
from nndoctor.reports.sections.common import sentence
from nndoctor.reports.text_safety import clean
from nndoctor.reports.view import RunView, spelled

COMMANDS = {Severity.CRITICAL: "error", Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


def render(view: RunView) -> str:
    """One command per finding, root causes first, then the verdict as a line of the log."""
    return "\n".join(_lines(view)) + "\n"


def _lines(view: RunView) -> Iterator[str]:
    for finding in view.diagnosis.findings:
        if finding.suppressed is None:
            yield _command(view, finding)
    # a line of a log that begins with two colons would be a command as well
    yield clean(view.diagnosis.verdict).lstrip(":")


def _command(view: RunView, finding: Finding) -> str:
    place = code_place(view, finding)
    title = f"{spelled(finding.diagnosis)} ({finding.rule}, since step {finding.first_step})"
    properties = {"title": title}
    if place is not None:
        properties = {"file": place.file, "line": str(place.line), **properties}
    given = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    command = COMMANDS[finding.severity] if finding.explained_by is None else "notice"
    return f"::{command} {given}::{_data(_message(finding))}"


def _message(finding: Finding) -> str:
    lines = [sentence(finding)]
    if finding.targets:
        lines.append(f"at {', '.join(finding.targets[:6])}" + (f" and {len(finding.targets) - 6} more" if len(finding.targets) > 6 else ""))
    if finding.explained_by is not None:
        lines.append(f"explained by {finding.explained_by}")
    lines += [f"fix: {describe_fix(fix)}" for fix in finding.fixes[:1]]
    return "\n".join(clean(line) for line in lines)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(clean(text)).replace(":", "%3A").replace(",", "%2C")
