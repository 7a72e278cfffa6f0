"""What the doctor says in one sentence, and that findings survive JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nndoctor.findings import (
    Diagnosis,
    Evidence,
    Finding,
    Fix,
    NotExamined,
    Severity,
    describe_fix,
    format_value,
    ordered,
)


def finding(rule: str, severity: Severity = Severity.ERROR, **changes: Any) -> Finding:
    return Finding(**{"rule": rule, "diagnosis": rule, "severity": severity, "confidence": "high", "targets": (), "first_step": 10, "last_step": 20, **changes})


def test_a_clean_run_is_told_with_what_was_looked_at() -> None:
    assert Diagnosis(steps=10_000, rules=58, layers=60).verdict == "No problems found in 10 000 steps (58 rules, 60 layers)."
    assert Diagnosis(steps=1, rules=1, layers=1).verdict == "No problems found in 1 step (1 rule, 1 layer)."


def test_rules_that_found_nothing_to_judge_are_not_counted_as_silence() -> None:
    unlooked = (NotExamined("a", "no validation"), NotExamined("a", "another reason"), NotExamined("b", "no BatchNorm"))
    assert Diagnosis(steps=5, rules=9, layers=2, not_examined=unlooked).verdict == "No problems found in 5 steps (7 of 9 rules, 2 layers)."
    assert Diagnosis(rules=9, not_examined=unlooked, findings=(finding("a"),)).rules_looking == 8, "it fired at another layer"


def test_the_verdict_names_the_root_cause_and_its_fix() -> None:
    cause = finding("learning-rate-too-high", Severity.CRITICAL, fixes=(Fix("Lower it", {"lr": 2e-4}),))
    symptom = finding("loss-rising", explained_by="learning-rate-too-high")
    assert Diagnosis(findings=(cause, symptom)).verdict == (
        "2 findings, 1 root cause: learning-rate-too-high -> set lr=2e-4 (nndoctor explain learning-rate-too-high)"
    )


def test_info_and_silenced_findings_are_no_problem() -> None:
    quiet = (finding("a", Severity.INFO), finding("b", suppressed="known and wanted"))
    diagnosis = Diagnosis(findings=quiet, steps=5, rules=2, layers=1)
    assert diagnosis.verdict.startswith("No problems found")
    assert diagnosis.root_causes == ()


def test_causes_come_before_symptoms_and_the_worst_first() -> None:
    found = ordered(
        [
            finding("symptom", Severity.CRITICAL, explained_by="cause"),
            finding("mild", Severity.WARNING),
            finding("late", Severity.ERROR, first_step=50),
            finding("cause", Severity.ERROR),
            finding("silenced", Severity.CRITICAL, suppressed="why not"),
        ]
    )
    assert [f.rule for f in found] == ["cause", "late", "mild", "symptom", "silenced"]


def test_a_finding_survives_json() -> None:
    evidence = Evidence("grad.norm", "fc1", 3.0, 1.0, ">", "1", (1, 2), (0.5, 3.0))
    original = finding("a", evidence=(evidence,), fixes=(Fix("x", {"lr": 0.1, "call": "zero_grad"}, "high", "safe"),), targets=("fc1",))
    assert Finding.from_dict(json.loads(json.dumps(original.to_dict()))) == original


@pytest.mark.parametrize(
    ("value", "text"), [(2e-4, "2e-4"), (0.1, "0.1"), (64.0, "64"), (1.5e-5, "1.5e-5"), (3e8, "3e8"), (0.0, "0"), ("train", "train")]
)
def test_values_are_written_as_a_person_would(value: float | str, text: str) -> None:
    assert format_value(value) == text


def test_a_fix_without_values_is_its_title() -> None:
    assert describe_fix(Fix("Call optimizer.step()")) == "Call optimizer.step()"


def test_an_unknown_severity_lists_the_four() -> None:
    with pytest.raises(ValueError, match="info, warning, error or critical"):
        Severity.parse("fatal")
