"""docs/coverage.md has every row, and each test that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
ROWS = [*(f"A{n}" for n in range(1, 15)), "topics", *(f"B{n}" for n in range(1, 18)), *(f"C{n}" for n in range(1, 9)), "zoo", *(f"F{n}" for n in range(1, 5)), *(f"G{n}" for n in range(1, 10)), *(f"H{n}" for n in range(1, 14))]


@pytest.mark.parametrize("row", ROWS)
def test_every_row_is_there_once_and_names_a_test(row: str) -> None:
    found = [line for line in PAGE.splitlines() if line.startswith(f"| {row} |")]
    assert len(found) == 1
    assert "`tests/" in found[0]


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[name for _, name in NAMED])
def test_each_named_test_exists(path: str, name: str) -> None:
    assert re.search(rf"^def {name}\(", (ROOT / path).read_text(encoding="utf-8"), flags=re.MULTILINE), f"{path} has no {name}"
