"""Every recipe of the cookbook works: its files are saved, its commands run in order, and what is shown comes out."""

from __future__ import annotations

import io
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import yaml

from nndoctor.cli.main import main

REPOSITORY = Path(__file__).resolve().parent.parent
RECIPES = sorted(path for path in (REPOSITORY / "docs" / "cookbook").glob("*.md") if path.name != "index.md")
BLOCK = re.compile(r'^```(?P<language>\w+)(?: title="(?P<file>[^"]+)")?\n(?P<body>.*?)^```$', flags=re.DOTALL | re.MULTILINE)
LEFT_OUT = "..."


def exchanges(body: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a console block with the lines that the page shows of its answer."""
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        command, *shown = part.rstrip("\n").split("\n")
        yield command, [line for line in shown if line.strip() and line.strip() != LEFT_OUT]


def run(command: str) -> tuple[int, str]:
    """Exit code and output of a command, in this process: torch is loaded once for all recipes."""
    program, *arguments = shlex.split(command)
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        if program == "nndoctor":
            code = main(arguments)
        elif arguments[:2] == ["-m", "pytest"]:
            test = runpy.run_path(arguments[-1])
            functions = [value for name, value in test.items() if name.startswith("test_")]
            for function in functions:
                function()
            print(f"{len(functions)} passed")
            code = 0
        else:
            assert program == "python", f"the test does not know how to run: {command}"
            runpy.run_path(arguments[0], run_name="__main__")
            code = 0
    return code, said.getvalue()


def squeezed(text: str) -> str:
    """Text without what differs between machines and terminals: digits, marks around them, white space."""
    return re.sub(r"[\s\d.,+─│·-]|e(?=[+-]?\d)", "", text)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in, from which scripts may import each other."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("COLUMNS", "100")
    yield tmp_path
    for name in [name for name, module in sys.modules.items() if str(getattr(module, "__file__", "")).startswith(str(tmp_path))]:
        del sys.modules[name]


@pytest.mark.parametrize("page", RECIPES, ids=lambda page: page.stem)
def test_a_recipe_works_word_for_word(page: Path, folder: Path) -> None:
    code, commands = 0, 0
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if block["file"]:
            (folder / block["file"]).parent.mkdir(parents=True, exist_ok=True)
            (folder / block["file"]).write_text(block["body"], encoding="utf-8")
        for command, shown in exchanges(block["body"]) if block["language"] == "console" else ():
            if command == "echo $?":
                assert [str(code)] == shown, f"{page.name}: the exit code before this was {code}"
                continue
            code, said = run(command)
            assert code in ((0, 1) if command.startswith("nndoctor diagnose") else (0,)), f"$ {command}\n{said}"
            rest = squeezed(said)
            for line in shown:
                _, found, rest = rest.partition(squeezed(line))
                assert found, f"$ {command}\ndoes not say, in this order: {line}\n{said}"
            commands += 1
    assert commands >= 2, f"{page.name} shows nothing that is run"


def test_there_are_ten_recipes_and_the_index_links_to_each() -> None:
    index = (REPOSITORY / "docs" / "cookbook" / "index.md").read_text(encoding="utf-8")
    assert len(RECIPES) == 10
    assert [page.name for page in RECIPES if f"({page.name})" not in index] == []


@pytest.mark.parametrize("page", RECIPES, ids=lambda page: page.stem)
def test_rules_that_a_recipe_explains_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    known = {name for path in (REPOSITORY / "rulesets" / "core").glob("*.yaml") for name in re.findall(r"^  - id: ([\w-]+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)}
    known |= {path.stem for path in (REPOSITORY / "rulesets" / "core").glob("*.yaml")}
    assert {name for name in re.findall(r"nndoctor explain ([a-z-]+)", text) if name not in known} == set()


def test_the_workflow_of_the_page_on_continuous_integration_is_yaml() -> None:
    text = (REPOSITORY / "docs" / "cookbook" / "continuous-integration.md").read_text(encoding="utf-8")
    (workflow,) = (block["body"] for block in BLOCK.finditer(text) if str(block["file"]).endswith(".yml"))
    assert {"nndoctor" in str(step) for step in yaml.safe_load(workflow)["jobs"]["smoke"]["steps"]} == {True, False}
