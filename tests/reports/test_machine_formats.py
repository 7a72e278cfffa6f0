"""SARIF, JUnit and GitHub's workflow commands: complete, well-formed, and safe with hostile names."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from nndoctor.findings import Finding, Fix, NotExamined, RuleDocs, Severity
from nndoctor.reports import github, junit, render_report, sarif, write_report
from nndoctor.reports.view import RunView
from tests.reports import report_runs as runs

PLACES = {"step": [{"file": "train.py", "line": 33, "code": "optimizer.step()"}]}


def finding(rule: str, severity: Severity = Severity.ERROR, **more: Any) -> Finding:
    return Finding(rule, more.pop("diagnosis", rule), severity, "high", more.pop("targets", ()), 10, 20, **more)


@pytest.fixture
def view() -> RunView:
    fix = Fix("Clear the gradients", {}, "high", "safe", "optimizer.zero_grad()", "before loss.backward() (my train.py, line 42)")
    found = (
        finding("missing-zero-grad", Severity.CRITICAL, message="gradients add up, 100% of steps\n::error::x", fixes=(fix,)),
        finding("dead-relu", message="half of it is dead", targets=runs.HOSTILE, explained_by="missing-zero-grad"),
        finding("loss-spike", Severity.WARNING, message="the loss leaps"),
        finding("clipping-is-always-on", Severity.INFO, message="clipped"),
        finding("overfitting", message="worse", suppressed="known since spring"),
    )
    made = runs.view(runs.history(50, 2), found, facts={"places": PLACES})
    docs = {f.rule: RuleDocs(f.rule, f.diagnosis, f"Mend {f.rule}", checks="Whether.", why="Because.") for f in found}
    docs["quiet-rule"] = RuleDocs("quiet-rule", "quiet-rule", "Nothing")
    unexamined = (NotExamined("blind-rule", "act.rms was never measured"),)
    return replace(made, rule_docs=docs, diagnosis=replace(made.diagnosis, not_examined=unexamined))


# -- SARIF


def test_sarif_has_a_result_for_each_finding_with_its_rule_level_and_line(view: RunView) -> None:
    (run,) = json.loads(sarif.render(view))["runs"]
    results = {result["ruleId"]: result for result in run["results"]}
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert set(rules) == set(results)
    assert all(rules[result["ruleIndex"]] == id for id, result in results.items())
    assert [results[id]["level"] for id in ("missing-zero-grad", "loss-spike", "clipping-is-always-on")] == ["error", "warning", "none"]
    place = results["missing-zero-grad"]["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "my%20train.py"}, "region": {"startLine": 42}}
    assert results["loss-spike"]["locations"][0]["physicalLocation"]["region"]["startLine"] == 33
    assert results["dead-relu"]["properties"]["explainedBy"] == "missing-zero-grad"
    assert results["overfitting"]["suppressions"][0]["justification"] == "known since spring"
    assert "suppressions" not in results["dead-relu"]


def test_sarif_fingerprints_are_of_the_finding_and_not_of_the_run(view: RunView) -> None:
    def prints(view: RunView) -> list[str]:
        return [result["partialFingerprints"]["nndoctorFinding/v1"] for result in sarif.document(view)["runs"][0]["results"]]

    later = replace(view, name="another", diagnosis=replace(view.diagnosis, findings=tuple(replace(f, first_step=11) for f in view.diagnosis.findings)))
    assert prints(view) == prints(later)
    assert len(set(prints(view))) == len(prints(view))


def test_sarif_of_a_healthy_run_has_no_results() -> None:
    (run,) = sarif.document(runs.view(runs.history(50, 2)))["runs"]
    assert run["results"] == []
    assert run["invocations"][0]["executionSuccessful"] is True


SCHEMA = os.environ.get("NNDOCTOR_SARIF_SCHEMA")


@pytest.mark.skipif(SCHEMA is None, reason="NNDOCTOR_SARIF_SCHEMA names no file: the schema of OASIS does not come with nndoctor")
def test_sarif_fulfils_the_schema_of_its_standard(view: RunView) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(Path(str(SCHEMA)).read_text(encoding="utf-8"))
    for made in (view, runs.ill(200, 8), runs.view(runs.history(50, 2))):
        jsonschema.validate(json.loads(sarif.render(made)), schema)


# -- JUnit


def test_junit_fails_what_is_an_error_passes_what_was_looked_at_and_skips_what_was_not(view: RunView) -> None:
    suite = ElementTree.fromstring(junit.render(view)).find("testsuite")
    assert suite is not None
    cases = {case.get("name"): case for case in suite.findall("testcase")}
    failed = {name for name, case in cases.items() if case.find("failure") is not None}
    assert failed == {"missing-zero-grad", "dead-relu"}
    assert {name for name, case in cases.items() if case.find("skipped") is not None} == {"blind-rule"}
    assert len(cases["quiet-rule"]) == 0
    assert "The loss leaps" in str(cases["loss-spike"].findtext("system-out"))
    assert "known since spring" in str(cases["overfitting"].findtext("system-out"))
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == (str(len(cases)), "2", "1")


def test_junit_takes_hostile_names(view: RunView) -> None:
    text = junit.render(view)
    ElementTree.fromstring(text)
    assert "\x1b" not in text
    assert "\x00" not in text
    assert "<img" not in text


# -- GitHub


def test_github_gets_one_command_per_finding_with_its_line(view: RunView) -> None:
    lines = github.render(view).splitlines()
    commands = [line for line in lines if line.startswith("::")]
    assert len(commands) == 4  # what is acknowledged is not told again
    assert any(line.startswith("::error file=my train.py,line=42,title=Missing zero grad (missing-zero-grad%2C since step 10)::") for line in commands)
    assert any(line.startswith("::warning file=train.py,line=33,title=Loss spike") for line in commands)
    assert any(line.startswith("::notice") and "explained by missing-zero-grad" in line for line in commands)
    assert lines[-1] == view.diagnosis.verdict


def test_github_obeys_no_command_that_a_message_holds(view: RunView) -> None:
    text = github.render(view)
    assert "\n::error::x" not in text
    assert "100%25 of steps" in text


# -- files


@pytest.mark.parametrize("name", ["r.sarif", "r.xml", "r.github", "r.junit"])
def test_the_suffix_chooses_the_format(view: RunView, tmp_path: Path, name: str) -> None:
    path = write_report(view, tmp_path / name)
    suffix = {"xml": "junit"}.get(path.suffix[1:], path.suffix[1:])
    assert path.read_text(encoding="utf-8") == render_report(view, suffix)
