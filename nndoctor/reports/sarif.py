"""The findings as SARIF 2.1.0, which code hosts and editors read: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from typing import Any

from nndoctor.findings import Finding, RuleDocs, Severity, describe_fix
from nndoctor.reports.places import code_place
from nndoctor.reports.sections.common import sentence
from nndoctor.reports.text_safety import clean
from nndoctor.reports.view import RunView, spelled

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
LEVELS = {Severity.CRITICAL: "error", Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
MOST_LAYERS = 50


def render(view: RunView) -> str:
    """One run of the tool with a result for each finding; rules that were silent are not listed."""
    return json.dumps(document(view), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def document(view: RunView) -> dict[str, Any]:
    findings = view.diagnosis.findings
    rules = list(dict.fromkeys(finding.rule for finding in findings))
    severities = {finding.rule: finding.severity for finding in findings}
    driver: dict[str, Any] = {
        "name": "nndoctor",
        "rules": [_rule(id, severities[id], view.rule_docs.get(id)) for id in rules],
    }
    if (installed := _version()) is not None:
        driver["version"] = installed
    run = {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"nndoctor/{clean(view.name)}"},
        "columnKind": "unicodeCodePoints",
        "invocations": [_invocation(view)],
        "results": [_result(view, finding, rules.index(finding.rule)) for finding in findings],
        "properties": {"verdict": clean(view.diagnosis.verdict), "steps": view.diagnosis.steps, "status": view.status},
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(id: str, severity: Severity, docs: RuleDocs | None) -> dict[str, Any]:
    rule: dict[str, Any] = {"id": id, "name": spelled(id), "defaultConfiguration": {"level": LEVELS[severity]}}
    if docs is None:
        return rule
    rule["shortDescription"] = {"text": clean(docs.title) or spelled(id)}
    if docs.checks:
        rule["fullDescription"] = {"text": clean(docs.checks)}
    paragraphs = [docs.why, docs.confirm and f"How to confirm: {docs.confirm}", *docs.fixes, *docs.known_problems]
    text = "\n\n".join(clean(part) for part in paragraphs if part)
    rule["help"] = {"text": text or f"nndoctor explain {id}"}
    rule["properties"] = {"tags": [docs.diagnosis]}
    return rule


def _result(view: RunView, finding: Finding, index: int) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": LEVELS[finding.severity],
        "kind": "fail" if finding.severity > Severity.INFO else "informational",
        "message": {"text": _message(finding)},
        "locations": [_location(view, finding)],
        "partialFingerprints": {"nndoctorFinding/v1": _fingerprint(finding)},
        "properties": {
            "diagnosis": finding.diagnosis,
            "severity": finding.severity.label,
            "confidence": finding.confidence,
            "firstStep": finding.first_step,
            "lastStep": finding.last_step,
            "state": finding.state,
        },
    }
    if result["kind"] == "informational":
        result["level"] = "none"  # the only level that goes with a result that is no failure
    if finding.explained_by is not None:
        result["properties"]["explainedBy"] = finding.explained_by
    if finding.suppressed is not None:
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": clean(finding.suppressed)}]
    return result


def _message(finding: Finding) -> str:
    parts = [clean(sentence(finding)) or spelled(finding.diagnosis)]
    if finding.explained_by is not None:
        parts.append(f"Explained by {finding.explained_by}.")
    parts += [clean(f"{fix.title}: {told}" if (told := describe_fix(fix)) != fix.title else fix.title) for fix in finding.fixes[:1]]
    return "\n".join(parts)


def _location(view: RunView, finding: Finding) -> dict[str, Any]:
    """The line of the script, and the layers as logical places."""
    location: dict[str, Any] = {}
    place = code_place(view, finding)
    if place is not None:
        address = PurePath(place.file).as_posix().replace(" ", "%20")
        location["physicalLocation"] = {"artifactLocation": {"uri": address}, "region": {"startLine": max(1, place.line)}}
    targets = [clean(name) for name in finding.targets[:MOST_LAYERS]] or [clean(view.name)]
    location["logicalLocations"] = [{"fullyQualifiedName": name or "?", "kind": "member" if finding.targets else "module"} for name in targets]
    return location


def _fingerprint(finding: Finding) -> str:
    """The same for the same finding in another run, so that hosts see one alert and not one for each run."""
    return hashlib.sha256("\0".join((finding.rule, *sorted(finding.targets))).encode("utf-8", "replace")).hexdigest()[:32]


def _invocation(view: RunView) -> dict[str, Any]:
    notes = [f"probe {failure.probe} was dismissed at step {failure.step}: {failure.error}" for failure in view.diagnosis.probe_failures]
    notes += [f"could not be read: {problem}" for problem in view.problems]
    told = [{"level": "warning", "message": {"text": clean(note)}} for note in notes]
    invocation: dict[str, Any] = {"executionSuccessful": True}
    if told:
        invocation["toolExecutionNotifications"] = told
    return invocation


def _version() -> str | None:
    try:
        return version("nndoctor")
    except PackageNotFoundError:
        return None
