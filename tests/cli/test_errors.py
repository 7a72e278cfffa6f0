"""Every message of a command that cannot do what was asked: what was wrong, what to do, exit code 2, no traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nndoctor as package
from nndoctor.cli import pages
from nndoctor.rules import rulesets_folder

from .conftest import Command

MESSAGES = [
    (("diagnos",), "did you mean diagnose?"),
    (("rules", "chek"), "did you mean check"),
    (("config", "shwo"), "did you mean show?"),
    (("diagnose", "nothing"), "no run 'nothing'"),
    (("diagnose", "--rules", "vison"), "did you mean 'vision'?"),
    (("diagnose", "--fail-on", "bad"), "expected one of info, warning, error, critical, never"),
    (("report", "-o", "x.pdf"), "expected .html, .json, .md, .txt"),
    (("report", "-o", "nowhere/x.html"), "there is no folder 'nowhere'; create it first"),
    (("explain", "dead-rellu"), "did you mean dead-relu"),
    (("rules", "show", "dead-rellu"), "did you mean dead-relu"),
    (("rules", "try", "loss +"), "loss +\n       ^"),
    (("rules", "try", "observed.return > 1"), "'return' is a reserved word"),
    (("rules", "backtest", "none.yaml"), "there is no ruleset 'none.yaml'"),
    (("watch", "nothing", "--once"), "no run 'nothing'"),
    (("run", "missing.py"), "no such script: 'missing.py'"),
    (("compare", "sick"), "two runs or more"),
    (("ack", "sick", "x", "--reason", "because"), "has no finding 'x'"),
    (("completion", "tcsh"), "expected bash, zsh or fish, got 'tcsh'"),
]


@pytest.mark.parametrize(("arguments", "said"), MESSAGES, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_a_mistake_is_told_with_what_to_do(nndoctor: Command, sick: Path, arguments: tuple[str, ...], said: str) -> None:
    answer = nndoctor(*arguments)
    assert answer.code == 2, answer.err
    assert said in answer.err
    assert answer.out == ""
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_of_a_shell_asks_the_command(nndoctor: Command, shell: str) -> None:
    answer = nndoctor("completion", shell)
    assert answer.code == 0
    assert f"_NNDOCTOR_COMPLETE=complete_{shell}" in answer.out
    assert answer.out.startswith("# ")
    assert "_NNDOCTOR_COMPLETE" not in os.environ


@pytest.mark.parametrize(
    ("words", "expected"),
    [("nndoctor dia", "diagnose"), ("nndoctor explain dead-r", "dead-relu"), ("nndoctor diagnose 2024", "20240102-sick"), ("nndoctor rules check fine", "fine-tuning")],
)
def test_a_shell_completes_commands_rules_runs_and_rulesets(sick: Path, words: str, expected: str) -> None:
    environment = {**os.environ, "_NNDOCTOR_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "PYTHONPATH": str(Path(package.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-m", "nndoctor.cli.main"], capture_output=True, text=True, env=environment, check=False)
    assert expected in done.stdout.split()


def test_the_second_explanation_needs_no_loader(here: Path) -> None:
    code = "import sys; from nndoctor.cli.main import main; main(['explain', 'dead-relu']); print('loader' if 'nndoctor.rules.loading' in sys.modules else 'kept')"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert runs[0].endswith("loader\n")
    assert runs[1].endswith("kept\n")
    assert runs[0].removesuffix("loader\n") == runs[1].removesuffix("kept\n")


def test_kept_pages_are_those_that_the_rules_give(nndoctor: Command) -> None:
    fresh = pages.pages_of(("core",))
    assert pages.pages_of(("core",)) == fresh
    assert len(list((Path(os.environ["XDG_CACHE_HOME"]) / "nndoctor").glob("pages-*.json"))) == 1


def test_a_changed_rule_is_another_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copy = tmp_path / "rulesets"
    shutil.copytree(rulesets_folder(), copy)
    monkeypatch.setattr(pages, "rulesets_folder", lambda: copy)
    before = pages._cache_file(("core",))
    assert pages._cache_file(("core",)) == before
    with (copy / "core" / "dead-relu.yaml").open("a") as file:
        file.write("\n")
    assert pages._cache_file(("core",)) != before


def test_a_cache_that_cannot_be_written_changes_nothing(nndoctor: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert nndoctor("explain", "dead-relu").code == 0
