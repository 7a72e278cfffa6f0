"""The examples, a few steps of each: healthy nothing is said, and a broken promise of the loop is named at once.

``benchmarks/examples.py`` runs them whole, with every mistake and three seeds.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.examples import HEALTHY, NAMES, UNTOUCHED, example, run
from nndoctor.rules import load_rulesets

FEW = {
    "image_classifier": ["--limit", "640", "--epochs", "1"],
    "char_gpt": ["--steps", "12"],
    "gan": ["--limit", "640", "--epochs", "1"],
    "tabular": ["--epochs", "2"],
    "rl_cartpole": ["--steps", "60"],
    "fine_tuning": ["--limit", "320", "--epochs", "1"],
}
AT_ONCE = [
    ("image_classifier", "missing-zero-grad"),
    ("char_gpt", "attention-mask-leak"),
    ("gan", "missing-zero-grad"),
    ("tabular", "label-leakage"),
    ("rl_cartpole", "missing-zero-grad"),
    ("fine_tuning", "weights-not-loaded"),
]
"""The rest shows in the course of a whole run."""


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_said_of_a_healthy_example(name: str) -> None:
    outcome = run(name, HEALTHY, FEW[name])
    assert outcome.right(HEALTHY), outcome


@pytest.mark.parametrize(("name", "sick"), AT_ONCE)
def test_a_planted_mistake_is_named_first(name: str, sick: str) -> None:
    outcome = run(name, sick, FEW[name])
    assert outcome.right(sick), outcome


def test_every_example_is_run_here_and_every_mistake_is_a_diagnosis(repository: Path) -> None:
    scripts = {path.stem for path in (repository / "examples").glob("*.py") if "--sick" in path.read_text(encoding="utf-8")}
    assert scripts == set(NAMES) == set(FEW)
    known = {rule.diagnosis for rule in load_rulesets(["core"]).rules}
    for name in NAMES:
        assert set(example(name).SICK) <= known


def test_the_page_names_every_example_and_mistake_and_no_other(repository: Path) -> None:
    page = (repository / "examples" / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{name}.py`"))
        assert re.findall(r"`([a-z-]+)`", row.split("|")[3]) == list(example(name).SICK)


def test_the_untouched_example_knows_nothing_of_the_doctor(repository: Path) -> None:
    for name in UNTOUCHED:
        assert "import nndoctor" not in (repository / "examples" / f"{name}.py").read_text(encoding="utf-8")


def test_what_ships_for_them_is_small(repository: Path) -> None:
    assert sum(path.stat().st_size for path in (repository / "examples" / "data").iterdir()) < 200_000
