"""The tutorial of the first rule works word for word, from the two runs to the rule that judges them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = (REPOSITORY / "docs" / "tutorial-first-rule.md").read_text(encoding="utf-8")
BINARIES = Path(sys.executable).parent
FINDS_SOMETHING = {"nndoctor diagnose": 1}
LINTS = iter((1, 0))
"""The draft has TODO marks to be told of, the finished file nothing."""


def steps() -> list[tuple[str, str]]:
    """The blocks of the page in order: commands one by one, and files to save."""
    found: list[tuple[str, str]] = []
    for language, body in re.findall(r"^```(console|yaml)\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE):
        if language == "yaml":
            found.append(("file", body))
        else:
            found += [("command", line.removeprefix("$ ")) for line in body.splitlines() if line.startswith("$ ")]
    return found


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, int, str]]:
    """Each command of the page with its exit code and what it said, run in the order of the page."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "examples").symlink_to(REPOSITORY / "examples")
    environment = {**os.environ, "PATH": f"{BINARIES}{os.pathsep}{os.environ.get('PATH', '')}", "COLUMNS": "120"}
    told = []
    for kind, text in steps():
        if kind == "file":
            name = text.split("\n", 1)[0].removeprefix("# ").strip()
            (folder / name).write_text(text, encoding="utf-8")
            continue
        done = subprocess.run(
            shlex.split(text), cwd=folder, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        told.append((text, done.returncode, done.stdout + done.stderr))
    return told


def test_every_command_of_the_tutorial_works_in_the_order_given(outputs: list[tuple[str, int, str]]) -> None:
    assert len(outputs) >= 14
    for command, code, said in outputs:
        expected = next(LINTS) if " lint " in command else FINDS_SOMETHING.get(" ".join(command.split()[:2]), 0)
        assert code == expected, f"$ {command}\n{said}"


def test_the_sentence_holds_in_the_sick_run_and_not_in_the_healthy_one(outputs: list[tuple[str, int, str]]) -> None:
    sick, healthy = (said for command, _, said in outputs if "try \"max(loss, 20) > 10" in command)
    assert "True from step" in sick
    assert "Never true in" in healthy


def test_the_rule_fires_in_the_sick_run_alone(outputs: list[tuple[str, int, str]]) -> None:
    (backtest,) = (said for command, _, said in outputs if "backtest" in command)
    assert "1 rule over 2 runs: fired in 1; false alarms in 0 of 1 healthy run." in backtest
    assert "early-leap" in outputs[-1][2] or "learning-rate-too-high" in outputs[-1][2]
