"""The built-in rules: complete in words, tested both ways, and silent on runs that only look ill."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nndoctor.findings import Severity
from nndoctor.rules import Rule, Ruleset, RuleTest, load_rulesets, rulesets_folder
from nndoctor.rules.testing import run_test

CORE: Ruleset = load_rulesets(["core"])
DIAGNOSES = {
    "bad-initialization",
    "dead-relu",
    "double-softmax",
    "eval-mode-during-training",
    "exploding-gradients",
    "frozen-layer-unintended",
    "gradients-cleared-before-step",
    "input-bound",
    "inputs-not-normalised",
    "learning-rate-too-high",
    "learning-rate-too-low",
    "loss-shape-broadcast",
    "lr-schedule-misconfigured",
    "missing-optimizer-step",
    "missing-zero-grad",
    "nan-or-inf",
    "overfitting",
    "parameters-not-in-optimizer",
    "same-batch-repeated",
    "saturated-activations",
    "targets-not-scaled",
    "unused-parameters",
    "vanishing-gradients",
}
CONTRACTS = (
    "double-softmax",
    "eval-mode-during-training",
    "gradients-cleared-before-step",
    "loss-shape-broadcast",
    "missing-optimizer-step",
    "missing-zero-grad",
    "parameters-not-in-optimizer",
)

each_rule = pytest.mark.parametrize("rule", CORE.rules, ids=lambda rule: rule.id)


def _rule(name: str) -> Rule:
    return next(rule for rule in CORE.rules if rule.id == name)


def _file_of(rule: Rule) -> Path:
    return rulesets_folder() / "core" / Path(rule.source.rpartition(":")[0]).name


def _tests_of(rule: Rule) -> list[RuleTest]:
    return [test for test in CORE.tests if rule.id in test.rules]


def test_core_covers_the_first_23_diagnoses() -> None:
    assert {rule.diagnosis for rule in CORE.rules} >= DIAGNOSES


def test_each_diagnosis_has_a_file_of_its_own() -> None:
    assert {path.stem for path in (rulesets_folder() / "core").glob("*.yaml")} >= DIAGNOSES


@each_rule
def test_every_section_of_the_docs_is_written(rule: Rule) -> None:
    docs = rule.docs
    sections = {
        "title": docs.title, "checks": docs.checks, "why": docs.why, "causes": docs.causes, "confirm": docs.confirm,
        "fixes": docs.fixes, "known_problems": docs.known_problems, "references": docs.references,
    }  # fmt: skip
    assert not [name for name, text in sections.items() if not text]
    assert len(docs.checks) > 40, "what the rule checks deserves a sentence"


@each_rule
def test_a_rule_speaks_with_message_evidence_and_remedy(rule: Rule) -> None:
    assert rule.texts.get("message")
    assert rule.evidence
    assert rule.fixes
    assert rule.category


@each_rule
def test_every_rule_has_a_test_in_which_it_fires(rule: Rule) -> None:
    firing = [
        test.name
        for test in CORE.tests
        for expect in test.model.expect
        if expect.rule == rule.id and expect.never is None and (expect.fires_in or expect.explained_by)
    ]
    assert firing


@each_rule
def test_every_rule_has_a_test_in_which_it_stays_silent(rule: Rule) -> None:
    silent = [
        test.name
        for test in _tests_of(rule)
        for expect in test.model.expect
        if expect.any == "never" or (expect.rule == rule.id and expect.never)
    ]
    assert silent


@pytest.mark.parametrize("test", CORE.tests, ids=lambda test: f"{Path(test.source).name}-{test.name}")
def test_written_down_run(test: RuleTest) -> None:
    result = run_test(CORE, test)
    assert result.passed, result.render()


@each_rule
def test_every_threshold_says_where_it_comes_from(rule: Rule) -> None:
    """Each parameter has a comment on its line or above it, in the block of the rule that declares it."""
    if not rule.params:
        return
    text = _file_of(rule).read_text(encoding="utf-8")
    block = re.split(r"\n  - id: ", text.partition(f"- id: {rule.id}\n")[2])[0]
    declared = re.search(r"((?:    #.*\n)*)    params:(.*\n(?:      .*\n)*)((?:    #.*\n)*)", block)
    assert declared is not None
    assert "#" in declared[0], f"{rule.id}: give {', '.join(rule.params)} a source or an experiment in a comment"


@pytest.mark.parametrize("diagnosis", CONTRACTS)
def test_a_broken_contract_is_loud_sure_and_rests_on_facts_alone(diagnosis: str) -> None:
    rule = _rule(diagnosis)
    assert rule.severity >= Severity.ERROR
    assert rule.confidence == "high"
    facts = ("loop.", "param.trainable", "param.in_optimizer", "param.reached", "loss.softmax_twice", "loss.broadcast")
    assert all(signal.startswith(facts) for signal in rule.signals())


def test_a_rate_that_is_too_high_explains_the_gradients_and_units_it_destroys() -> None:
    explained = {
        symptom for link in CORE.explain if "learning-rate-too-high" in link.causes for symptom in link.symptoms
    }
    assert {"exploding-gradients", "dead-relu", "saturated-activations", "nan-or-inf"} <= explained
