"""The reference of the rule language says what the code does: its examples work, and nothing is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nndoctor.rules import load_text, run_tests
from nndoctor.rules.expression import BUILT_INS, FUNCTIONS, LONGEST_WINDOW, MOST_CHARACTERS, MOST_NODES, REDUCERS
from nndoctor.rules.schema import ExpectModel, FixModel, OverrideModel, RuleModel, RulesetModel, TestModel

TEXT = (Path(__file__).parents[2] / "docs" / "rule-language.md").read_text(encoding="utf-8")
EXAMPLE = re.findall(r"```yaml\n(version.*?)```", TEXT, flags=re.DOTALL)[0]


def test_the_example_of_the_reference_loads_and_its_tests_pass() -> None:
    alone = EXAMPLE.replace("extends: [core]\n", "")
    results = run_tests(load_text(alone))
    assert len(results) == 2
    assert all(r.passed for r in results), [r.render() for r in results]


@pytest.mark.parametrize(
    "name",
    [
        *(f for f in FUNCTIONS if f not in REDUCERS),
        *BUILT_INS,
        *(n for n, (_, axis) in REDUCERS.items() if axis == "layer"),
    ],
)
def test_every_function_is_in_the_reference(name: str) -> None:
    assert re.search(rf"[` (]{re.escape(name)}[` (,)]", TEXT), name


@pytest.mark.parametrize("model", [RulesetModel, RuleModel, OverrideModel, TestModel, ExpectModel, FixModel])
def test_every_key_is_in_the_reference(model: type[RulesetModel]) -> None:
    for name, field in model.model_fields.items():
        assert re.search(rf"\b{field.alias or name}\b", TEXT), f"{model.__name__}.{name}"


def test_the_limits_in_the_reference_are_the_ones_of_the_code() -> None:
    assert f"At most {MOST_CHARACTERS} characters and {MOST_NODES} parts" in TEXT
    assert LONGEST_WINDOW > 2048
