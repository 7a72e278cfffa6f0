"""The public names: counted, documented, and what the type checker sees is what there is."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import nndoctor

PUBLIC_NAMES = ["Bundle", "Checkup", "Diagnosis", "Doctor", "Evidence", "Examination", "Finding", "Fix", "Frame", "Located", "Severity", "Signal", "StopTraining", "Subscriber", "Subscription", "__version__", "checkup", "locate_nonfinite", "metric", "wrap"]
DOCTOR_NAMES = ["close", "diagnosis", "facts", "observe", "probing", "report", "run_dir", "subscribe"]
WRAP_DEFAULTS = {
    "loss_fn": None, "loader": None, "rules": ("core",), "run_dir": None, "ui": "auto",
    "budget": 0.01, "cadence": None, "strict": False, "name": None,
}  # fmt: skip


def test_the_public_names_are_exactly_these() -> None:
    assert sorted(nndoctor.__all__) == PUBLIC_NAMES, "a public name is a promise: change this list on purpose"


@pytest.mark.parametrize("name", [name for name in PUBLIC_NAMES if name != "__version__"])
def test_a_public_name_exists_and_has_a_docstring_of_its_own(name: str) -> None:
    thing = getattr(nndoctor, name)
    assert thing.__module__.startswith("nndoctor."), f"{name} comes from {thing.__module__}"
    documentation = inspect.getdoc(thing) or ""
    assert documentation, f"{name} has no docstring"
    assert not documentation.startswith(f"{name}("), f"{name} has only the docstring that dataclass makes up"


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'unwrap'"):
        _ = nndoctor.unwrap  # type: ignore[attr-defined]


def test_the_type_checker_sees_every_public_name() -> None:
    tree = ast.parse(Path(nndoctor.__file__).read_text(encoding="utf-8"))
    aliases = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(PUBLIC_NAMES) - {"__version__"} <= aliases


def test_wrap_takes_what_the_documentation_says() -> None:
    parameters = inspect.signature(nndoctor.wrap).parameters
    assert list(parameters)[:3] == ["model", "optimizer", "loss_fn"]
    assert {name: parameters[name].default for name in WRAP_DEFAULTS} == WRAP_DEFAULTS
    after_loss = list(parameters.values())[3:]
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in after_loss)


@pytest.mark.parametrize("switch", ["1", "0"], ids=["on", "off"])
def test_a_doctor_has_the_contracted_names_also_when_switched_off(switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setenv("NNDOCTOR", switch)
    model = torch.nn.Linear(2, 2)
    with nndoctor.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1), ui="off") as doctor:
        assert [name for name in DOCTOR_NAMES if not hasattr(doctor, name)] == []
