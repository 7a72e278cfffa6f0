"""The diagnosis as JUnit XML, which every continuous integration shows: one test case for each rule."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from nndoctor.findings import Finding, Severity, describe_fix
from nndoctor.reports.sections.common import sentence
from nndoctor.reports.text_safety import clean
from nndoctor.reports.view import RunView

FAILS_FROM = Severity.ERROR
"""Findings as bad as this fail their test case; others pass and are told in its output, as `diagnose` counts them."""


def render(view: RunView) -> str:
    """A test suite for the run: what was found fails, what was looked at passes, what could not be judged is skipped."""
    findings = {finding.rule: finding for finding in view.diagnosis.findings}
    skipped = {item.rule: item.reason for item in view.diagnosis.not_examined}
    suite = Element("testsuite", name=f"nndoctor {clean(view.name)}")
    failures = 0
    for rule in dict.fromkeys((*view.rule_docs, *findings, *skipped)):
        docs = view.rule_docs.get(rule)
        case = SubElement(suite, "testcase", classname=f"nndoctor.{docs.diagnosis if docs is not None else rule}", name=rule, time="0")
        if rule in findings:
            failures += _told(case, findings[rule])
        elif rule in skipped:
            SubElement(case, "skipped", message=clean(skipped[rule]))
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(failures))
    suite.set("errors", "0")
    suite.set("skipped", str(sum(case.find("skipped") is not None for case in suite)))
    SubElement(suite, "system-out").text = clean(view.diagnosis.verdict)
    root = Element("testsuites")
    root.append(suite)
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _told(case: Element, finding: Finding) -> bool:
    """The finding in its test case; True if it is a failure."""
    text = "\n".join(clean(line) for line in _lines(finding))
    if finding.suppressed is not None or finding.severity < FAILS_FROM:
        SubElement(case, "system-out").text = text
        return False
    SubElement(case, "failure", type=finding.severity.label, message=clean(sentence(finding))).text = text
    return True


def _lines(finding: Finding) -> list[str]:
    lines = [sentence(finding), f"{finding.severity.label}, {finding.confidence} confidence, steps {finding.first_step} to {finding.last_step}, {finding.state}"]
    if finding.targets:
        lines.append(f"where: {', '.join(finding.targets[:20])}" + (f" and {len(finding.targets) - 20} more" if len(finding.targets) > 20 else ""))
    if finding.explained_by is not None:
        lines.append(f"explained by: {finding.explained_by}")
    lines += [f"fix: {fix.title}: {told}" if (told := describe_fix(fix)) != fix.title else f"fix: {told}" for fix in finding.fixes]
    if finding.suppressed is not None:
        lines.append(f"acknowledged: {finding.suppressed}")
    return lines
