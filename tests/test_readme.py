"""What the README shows works word for word."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BINARIES = Path(sys.executable).parent
NOT_RUN_HERE = ("make ", "pip ")  # CI runs these: the environment that this test runs in was made by them


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    lines = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
    return [line for line in lines if not line.startswith(NOT_RUN_HERE)]


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{BINARIES}{os.pathsep}{os.environ.get('PATH', '')}", "COLUMNS": "120"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder with the rule file that the README tells to save, and the examples beside it."""
    folder = tmp_path_factory.mktemp("reader")
    (rule_file,) = blocks("yaml")
    (folder / "my_rules.yaml").write_text(rule_file, encoding="utf-8")
    (folder / "examples").symlink_to(REPOSITORY / "examples")
    return folder


def test_the_loop_names_the_planted_cause_and_writes_its_report(folder: Path) -> None:
    (code,) = blocks("python")
    done = run([sys.executable, "-c", code], folder)
    assert done.returncode == 0, done.stderr
    assert "learning-rate-too-high" in done.stderr.splitlines()[-1], "the panel ends in the verdict"
    assert (folder / "report.html").stat().st_size > 10_000


def test_every_command_works_in_the_order_given(folder: Path) -> None:
    outputs = {}
    for command in commands():
        done = run(shlex.split(command), folder)
        expected = (0, 1) if command.startswith("nndoctor diagnose") else (0,)  # 1: it found something
        assert done.returncode in expected, f"$ {command}\n{done.stdout}\n{done.stderr}"
        outputs[command] = done.stdout + done.stderr
    assert len(outputs) >= 8, "the commands of the README were not found"
    assert "learning-rate-too-high" in outputs["nndoctor run -- examples/train.py --lr 0.1"]


def test_the_rules_in_the_readme_find_a_mistake_put_into_them(folder: Path) -> None:
    (rule_file,) = blocks("yaml")
    (folder / "broken.yaml").write_text(rule_file.replace("min(loss", "mim(loss", 1), encoding="utf-8")
    done = run(["nndoctor", "rules", "check", "broken.yaml"], folder)
    assert done.returncode == 2
    assert "mim" in done.stdout + done.stderr


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)", README)) - {""}))
def test_what_the_readme_links_to_is_there(target: str) -> None:
    assert target.startswith("http") or (REPOSITORY / target).exists(), f"README.md links to {target}"


@pytest.mark.parametrize("chore", sorted(set(re.findall(r"`?\bmake ([a-z]+)\b", README))))
def test_every_chore_in_the_readme_is_in_the_makefile(chore: str) -> None:
    assert re.search(rf"^{chore}:", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
