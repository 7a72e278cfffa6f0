"""The profiles beside core: each extends it with reasons, tests its own rules both ways, and leaves core's healthy runs silent."""

from __future__ import annotations

import re

import pytest
import yaml

from nndoctor.findings import Severity
from nndoctor.rules import Ruleset, load_rulesets, rulesets_folder
from nndoctor.rules.lint import lint
from nndoctor.rules.testing import run_test, run_tests

from .test_references import REFERENCE

PROFILES = ("ci", "fine-tuning", "gan", "llm", "rl", "strict", "vision")
CORE = {rule.id: rule for rule in load_rulesets(["core"]).rules}


@pytest.fixture(scope="module", params=PROFILES)
def profile(request: pytest.FixtureRequest) -> Ruleset:
    return load_rulesets([request.param])


def test_the_profiles_that_ship_are_these() -> None:
    assert tuple(sorted(path.stem for path in rulesets_folder().glob("*.yaml"))) == PROFILES


def test_a_profile_extends_core_and_says_what_it_is_for(profile: Ruleset) -> None:
    file = rulesets_folder() / f"{profile.sources[0]}.yaml"
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert data["name"] == profile.sources[0]
    assert data["extends"] == ["core"]
    assert len(data["description"]) > 40
    assert CORE.keys() <= {rule.id for rule in profile.rules}


def test_every_change_to_core_has_a_reason_and_changes_something(profile: Ruleset) -> None:
    data = yaml.safe_load((rulesets_folder() / f"{profile.sources[0]}.yaml").read_text(encoding="utf-8"))
    loaded = {rule.id: rule for rule in profile.rules}
    for override in data["overrides"]:
        assert len(override["reason"].split()) >= 5, override
        for id in override["rules"]:
            before, after = CORE[id], loaded[id]
            changed = before.severity != after.severity or before.params != after.params or (before.disabled is None) != (after.disabled is None)
            assert changed, f"{profile.sources[0]} overrides {id} with what it is already"


def test_the_tests_of_a_profile_pass(profile: Ruleset) -> None:
    own = [test for test in profile.tests if "/core/" not in test.source]
    assert own
    assert not [result.render() for result in (run_test(profile, test) for test in own) if not result.passed]


def test_nothing_is_to_be_remarked_on_the_rules_of_a_profile(profile: Ruleset) -> None:
    assert lint(profile, [rulesets_folder() / f"{profile.sources[0]}.yaml"]) == []


def test_rules_of_a_profile_cite_what_can_be_looked_up(profile: Ruleset) -> None:
    for rule in profile.rules:
        if rule.id not in CORE:
            assert rule.stability == "preview"
            assert all(REFERENCE.fullmatch(reference) for reference in rule.docs.references), rule.docs.references


def test_runs_that_core_takes_for_healthy_are_healthy_by_a_profile(profile: Ruleset) -> None:
    """What is written down beside core's rules as healthy; strict may note more, but nothing as an error."""
    limit = Severity.WARNING if profile.sources[0] == "strict" else Severity.INFO
    healthy = [test for test in profile.tests if re.search(r"/core/ruleset\.yaml", test.source)]
    assert len(healthy) >= 8
    for test in healthy:
        (result,) = run_tests(_only(profile, test))
        worse = [finding for finding in result.findings if finding.severity > limit]
        assert not worse, f"{profile.sources[0]} on {test.name}: {worse}"


def _only(profile: Ruleset, test: object) -> Ruleset:
    from dataclasses import replace

    return replace(profile, tests=(test,))
