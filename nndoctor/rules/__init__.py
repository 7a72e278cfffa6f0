"""The rule language: YAML rulesets, loaded and checked once, judged on every frame of a run.

The public names load what they need when they are first used: to list runs, or to explain a rule, needs no engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nndoctor.rules.engine import Judge as Judge
    from nndoctor.rules.folder import rulesets_folder as rulesets_folder
    from nndoctor.rules.loading import load_rulesets as load_rulesets
    from nndoctor.rules.loading import load_text as load_text
    from nndoctor.rules.problems import Problem as Problem
    from nndoctor.rules.problems import RulesetError as RulesetError
    from nndoctor.rules.ruleset import Rule as Rule
    from nndoctor.rules.ruleset import Ruleset as Ruleset
    from nndoctor.rules.ruleset import RuleTest as RuleTest
    from nndoctor.rules.testing import TestResult as TestResult
    from nndoctor.rules.testing import run_tests as run_tests

_HOME = {
    "Judge": "engine",
    "Problem": "problems",
    "Rule": "ruleset",
    "RuleTest": "ruleset",
    "Ruleset": "ruleset",
    "RulesetError": "problems",
    "TestResult": "testing",
    "load_rulesets": "loading",
    "load_text": "loading",
    "rulesets_folder": "folder",
    "run_tests": "testing",
}

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


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"nndoctor.rules.{_HOME[name]}"), name)
    raise AttributeError(f"module 'nndoctor.rules' has no attribute {name!r}")
