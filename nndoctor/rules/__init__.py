"""The rule language: YAML rulesets, loaded and checked once, judged on every frame of a run."""

from __future__ import annotations

from nndoctor.rules.engine import Judge
from nndoctor.rules.loading import load_rulesets, load_text, rulesets_folder
from nndoctor.rules.problems import Problem, RulesetError
from nndoctor.rules.ruleset import Rule, Ruleset, RuleTest
from nndoctor.rules.testing import TestResult, run_tests

__all__ = [
    "Judge",
    "Problem",
    "Rule",
    "RuleTest",
    "Ruleset",
    "RulesetError",
    "TestResult",
    "load_rulesets",
    "load_text",
    "rulesets_folder",
    "run_tests",
]
