"""The catalogue has every diagnosis that a rule makes, and its page is what the rules and the clinic say today."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from nndoctor.rules import load_rulesets
from nndoctor.zoo.case import all_cases

CATALOGUE = yaml.safe_load((Path(__file__).resolve().parents[1] / "docs" / "catalogue.yaml").read_text(encoding="utf-8"))
ENTRIES = {name: fields for group in CATALOGUE.values() for name, fields in group.items()}
RULES = load_rulesets(["core"]).rules


def test_names_are_unique_and_described() -> None:
    assert len(ENTRIES) == sum(len(group) for group in CATALOGUE.values())
    for name, fields in ENTRIES.items():
        assert set(fields) <= {"what", "kind", "same_as", "not_covered"}, name
        assert fields["what"].endswith((".", ")")), name


def test_every_rule_and_every_case_has_its_diagnosis_in_the_catalogue() -> None:
    assert {rule.diagnosis for rule in RULES} <= ENTRIES.keys()
    assert {case.diagnosis for case in all_cases() if case.diagnosis} <= ENTRIES.keys()


def test_what_a_rule_decides_has_no_excuse() -> None:
    for rule in RULES:
        fields = ENTRIES[rule.diagnosis]
        assert not fields.get("not_covered"), rule.diagnosis
        assert not fields.get("same_as"), rule.diagnosis


def test_an_entry_under_another_name_leads_to_one_that_is_there() -> None:
    assert {fields["same_as"] for fields in ENTRIES.values() if "same_as" in fields} <= {rule.diagnosis for rule in RULES}


def test_the_page_is_up_to_date(repository: Path) -> None:
    command = [sys.executable, str(repository / "scripts" / "make_catalogue.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=repository)
    assert done.returncode == 0, done.stderr
