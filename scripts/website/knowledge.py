"""Everything the generated pages are made of, read once: rules, signals, the clinic's runs, the cases of the zoo."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from make_catalogue import Entry, entries

from nndoctor.rules import Rule, load_rulesets
from nndoctor.rules.clinic import Clinic, shipped_clinic
from nndoctor.rules.folder import built_in_rulesets
from nndoctor.rules.ruleset import Link
from nndoctor.signals import CATALOGUE, Catalogue
from nndoctor.zoo.case import Case, all_cases

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PROBES = REPOSITORY / "nndoctor" / "probes"
ELSEWHERE = ("nndoctor/frames.py", "nndoctor/tiles.py", "nndoctor/doctor.py", "nndoctor/loop_state.py", "nndoctor/attach.py")


@dataclass(frozen=True)
class Knowledge:
    """What there is to write about.

    Args:
        groups: the catalogue: group to its entries, in order.
        rules: every rule of every built-in ruleset, once; `origin` says which ruleset brought it.
        links: which causes explain which symptoms.
        runs: case name to its runs in the clinic.
        measured_in: signal name to the files that measure it.
    """

    groups: Mapping[str, Sequence[Entry]]
    rules: tuple[Rule, ...]
    origin: Mapping[str, str]
    links: tuple[Link, ...]
    signals: Catalogue
    clinic: Clinic
    cases: tuple[Case, ...]
    runs: Mapping[str, Sequence[Mapping[str, Any]]]
    measured_in: Mapping[str, Sequence[str]]

    def rules_of(self, diagnosis: str) -> list[Rule]:
        return [rule for rule in self.rules if rule.diagnosis == diagnosis]

    def cases_of(self, diagnosis: str) -> list[Case]:
        return [case for case in self.cases if case.diagnosis == diagnosis]

    @property
    def entries(self) -> dict[str, Entry]:
        """Every diagnosis by name; those that only a profile knows come last."""
        known = {entry.name: entry for found in self.groups.values() for entry in found}
        for rule in self.rules:
            known.setdefault(rule.diagnosis, Entry(rule.diagnosis, rule.docs.checks))
        return known


def knowledge() -> Knowledge:
    core = load_rulesets(["core"])
    rules, origin = {rule.id: rule for rule in core.rules}, {rule.id: "core" for rule in core.rules}
    for profile in built_in_rulesets():
        for rule in load_rulesets([profile]).rules:
            if rule.id not in rules:
                rules[rule.id], origin[rule.id] = rule, profile
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for run in json.loads((REPOSITORY / "docs" / "clinic.json").read_text(encoding="utf-8"))["runs"]:
        runs.setdefault(run["case"], []).append(run)
    return Knowledge(
        entries(), tuple(rules.values()), origin, core.explain, CATALOGUE, shipped_clinic(), all_cases(), runs, measured_in(CATALOGUE)
    )


def measured_in(catalogue: Catalogue) -> dict[str, list[str]]:
    """The probes whose source has the name of the signal in it, or where there is none the file that derives it."""
    found: dict[str, list[str]] = {}
    paths = [*sorted(PROBES.glob("*.py")), *(REPOSITORY / name for name in ELSEWHERE)]
    for path in paths:
        texts = [node.value for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Constant)]
        for name in {text for text in texts if isinstance(text, str) and text in catalogue}:
            if path.parent == PROBES or name not in found:
                found.setdefault(name, []).append(str(path.relative_to(REPOSITORY)))
    return found
