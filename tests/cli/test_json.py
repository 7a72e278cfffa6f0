"""What programs read: every command answers in JSON, with the keys that the documentation lists, and nothing beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from nndoctor.cli.app import app_for

from .conftest import Command

WITHOUT = {
    "train": "writes lines of JSON with -v jsonl; it trains for somebody who looks on",
    "completion": "prints a shell's script",
    "rules schema": "is JSON as it is",
}
"""Commands that have no ``--json``, and why."""

CALLS = {
    "ls": [],
    "diagnose": ["sick"],
    "watch": ["sick"],
    "report": ["sick"],
    "compare": ["sick", "healthy"],
    "times": ["sick"],
    "ack": ["sick"],
    "config show": [],
    "explain": ["dead-relu"],
    "rules list": ["mine.yaml"],
    "rules check": ["mine.yaml"],
    "rules test": ["mine.yaml"],
    "rules lint": ["mine.yaml"],
    "rules backtest": ["mine.yaml", "sick"],
    "rules try": ["loss > 5", "sick"],
    "rules new": ["new-rule", "--when", "loss > 5", "--sick", "sick", "--healthy", "healthy"],
}


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that can be called, by its words."""
    for name, inside in getattr(command, "commands", {}).items():
        if hasattr(inside, "commands"):
            yield from commands(inside, (*path, name))
        else:
            yield " ".join((*path, name)), inside


def documented(repository: Path) -> dict[str, tuple[type, set[str]]]:
    """Command to the kind of its answer and its keys, from the table of the documentation."""
    text = (repository / "docs" / "command-line.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \|(.*?)\|(.*?)\|$", text[text.index("## JSON") : text.index("## run")], re.MULTILINE)
    return {name: (dict if one.strip() else list, set(re.findall(r"`(\w+)`", one + many))) for name, one, many in rows}


def test_every_command_answers_in_json_or_there_is_a_reason_why_not() -> None:
    options = {name: {option for parameter in command.params for option in parameter.opts} for name, command in commands(typer.main.get_command(app_for(())))}
    assert {name for name in options if "--json" not in options[name]} == set(WITHOUT)


@pytest.mark.usefixtures("sick", "healthy")
@pytest.mark.parametrize("command", CALLS)
def test_the_answer_has_the_documented_keys_and_nothing_stands_beside_it(nndoctor: Command, command: str, repository: Path) -> None:
    answer = nndoctor(*command.split(), *CALLS[command], "--json")
    assert answer.code in (0, 1), answer.err
    data = json.loads(answer.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    kind, keys = documented(repository)[command]
    assert isinstance(data, kind)
    for item in data if isinstance(data, list) else [data]:
        assert set(item) == keys


def test_the_table_has_a_row_for_each_of_these_and_none_for_commands_that_are_none(repository: Path) -> None:
    names = {name for name, _ in commands(typer.main.get_command(app_for(())))}
    assert set(CALLS) <= set(documented(repository)) <= {*names, "demo --list"}


@pytest.mark.usefixtures("sick")
@pytest.mark.parametrize(("arguments", "code"), [(["diagnose"], 1), (["diagnose", "--fail-on", "never"], 0), (["diagnose", "nothing"], 2)])
def test_the_exit_code_is_the_same_in_json(nndoctor: Command, arguments: list[str], code: int) -> None:
    assert nndoctor(*arguments).code == nndoctor(*arguments, "--json").code == code


SCRIPT = """
import torch
torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for _ in range(6):
    optimizer.zero_grad()
    torch.nn.functional.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1)).backward()
    optimizer.step()
print("the script's own line")
"""


def test_run_writes_the_diagnosis_where_it_is_told_and_leaves_stdout_to_the_script(
    nndoctor: Command, here: Path, rules: Path, repository: Path
) -> None:
    (here / "train.py").write_text(SCRIPT)
    answer = nndoctor("run", "--ui", "off", "--rules", "mine.yaml", "--json", "out.json", "train.py")
    assert answer.code == 0, answer.err
    assert answer.out == "the script's own line\n"
    data = json.loads((here / "out.json").read_text())
    assert set(data) == documented(repository)["diagnose"][1]
    assert (data["status"], data["steps"], data["verdict"]) == ("finished", 6, "No problems found in 6 steps (2 rules, 1 layer).")


def test_another_process_of_a_distributed_training_leaves_files_and_words_to_the_first(
    nndoctor: Command, here: Path, rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "train.py").write_text(SCRIPT)
    wanted = ("--json", "out.json", "--report", "out.html", "--run-dir", "kept")
    monkeypatch.setenv("RANK", "1")
    other = nndoctor("run", "--ui", "off", "--rules", "mine.yaml", *wanted, "train.py")
    assert not (here / "out.json").exists()
    assert not (here / "out.html").exists()
    assert other.err == "nndoctor: rank 1: No problems found in 6 steps (2 rules, 1 layer). [kept-rank1]\n"
    monkeypatch.setenv("RANK", "0")
    first = nndoctor("run", "--ui", "off", "--rules", "mine.yaml", *wanted, "train.py")
    assert (here / "out.json").exists()
    assert "run recorded in kept (" in first.err
    assert sorted(path.parent.name for path in here.glob("kept*/record.sqlite")) == ["kept", "kept-rank1"]


def test_a_report_that_cannot_be_written_at_the_end_leaves_the_scripts_exit_code(nndoctor: Command, here: Path, rules: Path) -> None:
    (here / "reports").mkdir()
    (here / "train.py").write_text(f"{SCRIPT}\nimport os, sys\nos.rmdir('reports')\nsys.exit(5)\n")
    answer = nndoctor("run", "--ui", "off", "--rules", "mine.yaml", "--report", "reports/x.html", "train.py")
    assert answer.code == 5
    assert "there is no folder 'reports'" in answer.err


def test_a_module_is_run_as_with_python(nndoctor: Command, here: Path, rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "my_training.py").write_text("import sys; print(__name__, sys.argv[1:])")
    answer = nndoctor("run", "--ui", "off", "--rules", "mine.yaml", "-m", "my_training", "--lr", "1")
    assert (answer.code, answer.out) == (0, "__main__ ['--lr', '1']\n")
