"""The clinic's table is read back as it was written, and put into sentences that hold what it holds."""

from __future__ import annotations

import json

import pytest

from nndoctor.rules import load_rulesets
from nndoctor.rules.clinic import Clinic, Record, described, parse_clinic, shipped_clinic

TABLE = {
    "seeds": 3,
    "sick": 2,
    "healthy": 1,
    "rules": {"dead-relu": {"all": [5, 6, 1], "untuned": [2, 3, 0]}, "silent": {"all": [0, 0, 0]}},
    "diagnoses": {"dead-relu": {"all": [6, 6, 1], "first": 5, "remedy": [4, 6], "steps": [20, 120]}},
}
CLINIC = parse_clinic(json.dumps(TABLE))


def test_precision_and_recall_follow_from_the_counts() -> None:
    row = CLINIC.rules["dead-relu"]
    assert row.all.precision == pytest.approx(5 / 6)
    assert row.all.recall == pytest.approx(5 / 6)
    assert row.untuned.recall == pytest.approx(2 / 3)


def test_what_was_never_named_or_planted_has_no_figure() -> None:
    assert Record().precision is None
    assert Record().recall is None


def test_a_rule_is_described_with_its_diagnosis() -> None:
    text = " ".join(described("dead-relu", "dead-relu", CLINIC))
    assert "named in 5 of 6 runs with dead-relu, wrongly in 1; 2 of 3 on cases it was not tuned on" in text
    assert "first in 5" in text
    assert "20 in the median, 120 at most" in text
    assert "cured 4 of 6 runs" in text


def test_a_rule_that_the_clinic_does_not_know_is_not_described() -> None:
    assert described("mine", "mine", CLINIC) == ()
    assert described("silent", "nothing", CLINIC) == ()
    assert described("dead-relu", "dead-relu", Clinic()) == ()


def test_a_file_that_is_no_table_is_refused() -> None:
    with pytest.raises(ValueError, match=r"clinic\.json: expected the summary"):
        parse_clinic('{"seeds": 3}')
    with pytest.raises(ValueError, match=r"clinic\.json: expected the summary"):
        parse_clinic("<html>")


def test_the_table_that_ships_names_only_rules_that_there_are() -> None:
    clinic = shipped_clinic()
    assert clinic.rules
    known = {rule.id for rule in load_rulesets(["core"]).rules}
    assert clinic.rules.keys() <= known
