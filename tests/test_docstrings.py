"""The public names say what they give, and the examples in their docstrings are true."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import nndoctor

NAMES = [name for name in nndoctor.__all__ if name != "__version__"]
FOR_USERS = {"Doctor": ("observe", "subscribe", "probing", "diagnosis", "report", "close")}
"""Members that users call, of classes that have others for the rest of the package."""


def members(name: str) -> Iterator[tuple[str, Any]]:
    """What a public name offers: itself, and for a class its public methods and properties."""
    thing = getattr(nndoctor, name)
    yield name, thing
    if inspect.isclass(thing):
        for member, value in vars(thing).items():
            wanted = member in FOR_USERS.get(name, (member,)) and not member.startswith("_")
            if wanted and isinstance(value, (property, staticmethod, classmethod)) | inspect.isfunction(value):
                yield f"{name}.{member}", value.fget if isinstance(value, property) else getattr(value, "__func__", value)


def parameters(thing: Any) -> list[str]:
    return [p for p in inspect.signature(thing).parameters if p != "self"] if callable(thing) else []


@pytest.mark.parametrize("name", NAMES)
def test_what_a_public_name_offers_says_what_you_get(name: str) -> None:
    silent = [called for called, thing in members(name) if not (inspect.getdoc(thing) or "").split("\n")[0].strip()]
    assert silent == []


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_of_a_public_name_is_described(name: str) -> None:
    thing = getattr(nndoctor, name)
    if name in ("Severity", "Doctor"):  # an enumeration; made by wrap alone
        return
    documentation = inspect.getdoc(thing) or ""
    assert [p for p in parameters(thing) if f"{p}:" not in documentation and f"{p}, " not in documentation] == []


@pytest.mark.parametrize("name", NAMES)
def test_what_is_raised_on_purpose_is_told(name: str) -> None:
    for called, thing in members(name):
        if inspect.isfunction(thing) and "raise " in inspect.getsource(thing).partition('"""')[2].partition('"""')[2]:
            assert "Raises:" in (inspect.getdoc(thing) or ""), called


@pytest.mark.parametrize("name", NAMES)
def test_no_docstring_has_markup_that_the_site_does_not_know(name: str) -> None:
    assert [called for called, thing in members(name) if ":func:`" in (thing.__doc__ or "") or ":class:`" in (thing.__doc__ or "")] == []


def test_at_least_ten_public_names_have_an_example() -> None:
    assert len([name for name in NAMES if ">>>" in (getattr(nndoctor, name).__doc__ or "")]) >= 10


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_are_true(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    thing = getattr(nndoctor, name)
    names = vars(import_module(thing.__module__))
    for example in doctest.DocTestFinder(recurse=True).find(thing, name, globs=dict(names)):
        said: list[str] = []
        result = doctest.DocTestRunner().run(example, out=said.append)
        assert result.failed == 0, "".join(said)
