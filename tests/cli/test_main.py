"""What all commands have in common: start-up, errors, hostile strings, pipes, settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nndoctor as package
from nndoctor.cli import app
from nndoctor.cli import main as main_module
from nndoctor.cli.output import UsageError
from nndoctor.cli.settings import load_settings, nearest_file

from .conftest import Command


def python(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload, no-any-return]


# -- start-up


def test_version_is_told_without_importing_anything_that_takes_time() -> None:
    done = python(
        "import sys; from nndoctor.cli.main import main; code = main(['--version'])\n"
        "print([m for m in ('numpy', 'typer', 'rich', 'pydantic', 'torch') if m in sys.modules], code)"
    )
    assert done.stdout == f"nndoctor {package.__version__}\n[] 0\n"


def test_python_m_nndoctor_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "nndoctor", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"nndoctor {package.__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["ls"], ["explain", "dead-relu"], ["rules", "list"], ["config", "show"], ["--help"]]
)
def test_no_command_that_only_answers_imports_torch(arguments: list[str], here: Path) -> None:
    done = python(
        f"import sys; from nndoctor.cli.main import main; main({arguments}); sys.exit('torch' in sys.modules)"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["ls"], ("torch", "numpy", "scipy", "jinja2", "yaml", "matplotlib", "nndoctor.rules", "nndoctor.zoo")),
        (["explain", "dead-relu"], ("torch", "numpy", "scipy", "jinja2", "yaml", "matplotlib", "sqlite3", "nndoctor.record", "nndoctor.zoo")),
        (["config", "show"], ("torch", "numpy", "scipy", "jinja2", "yaml", "sqlite3", "nndoctor.record", "nndoctor.rules")),
        (["completion", "bash"], ("torch", "scipy", "jinja2", "yaml", "matplotlib", "nndoctor.zoo")),
    ],
    ids=lambda value: value[0],
)
def test_a_command_imports_what_it_needs_and_no_more(arguments: list[str], heavy: tuple[str, ...], here: Path) -> None:
    code = f"import sys; from nndoctor.cli.main import main; main({arguments}); "
    python(code)  # the first `explain` keeps the pages of the rules for the next
    done = python(code + f"sys.exit(', '.join(name for name in {heavy} if name in sys.modules))")
    assert (done.returncode, done.stderr) == (1, "\n"), "an empty list of heavy modules"


def test_every_command_is_listed_and_has_help(nndoctor: Command) -> None:
    overview = nndoctor("--help").out
    for name in ("run", "demo", "watch", "ls", "diagnose", "report", "explain", "rules", "check", "config"):
        assert f"  {name} " in overview
        assert nndoctor(name, "--help").out.startswith(f"Usage: nndoctor {name}")


@pytest.mark.parametrize("group", [[], ["rules"], ["lab"], ["config"]], ids=lambda group: " ".join(group) or "nndoctor")
def test_an_overview_says_of_each_command_in_one_whole_sentence_what_it_does(nndoctor: Command, group: list[str]) -> None:
    commands = nndoctor(*group, "--help").out.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert commands
    assert [line for line in commands if not line.startswith("  ") or line[2] == " " or not line.endswith(".") or line.endswith("...")] == []


def test_the_help_of_run_shows_where_the_script_goes(nndoctor: Command) -> None:
    assert nndoctor("run", "--help").out.startswith("Usage: nndoctor run [OPTIONS] -- SCRIPT [ARGS]...\n")


@pytest.mark.parametrize("name", app.COMMANDS)
def test_help_names_values_in_words_and_not_by_their_python_types(nndoctor: Command, name: str) -> None:
    told = nndoctor(name, "--help").out
    assert [mark for mark in ("<str", "<int", "<float", "<path", "<list", "{", "[[") if mark in told] == []


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["ls", "--nonsense"], ["diagnose", "--format", "xml"], ["explain"]]
)
def test_a_wrong_argument_ends_with_2_and_says_which(nndoctor: Command, arguments: list[str]) -> None:
    answer = nndoctor(*arguments)
    assert answer.code == 2
    assert answer.out == ""
    assert "error" in answer.err.lower()
    assert "Traceback" not in answer.err


# -- errors


def test_our_own_mistake_ends_with_3_and_shows_its_traceback_only_when_asked(
    nndoctor: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(arguments: object) -> int:
        raise ZeroDivisionError("[/bold] oops")

    monkeypatch.setattr(main_module, "_run_app", fail)
    answer = nndoctor("ls")
    assert answer.code == 3
    assert "ZeroDivisionError: [/bold] oops" in answer.err
    assert "Traceback" not in answer.err
    monkeypatch.setenv("NNDOCTOR_DEBUG", "1")
    answer = nndoctor("ls")
    assert answer.code == 3
    assert "Traceback" in answer.err


def test_an_interrupt_is_quiet(nndoctor: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(main_module, "_run_app", interrupt)
    answer = nndoctor("ls")
    assert (answer.code, answer.out, answer.err) == (130, "", "")


def test_a_broken_pipe_is_quiet() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "nndoctor.cli.main", "rules", "schema"],
        stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == main_module.NOBODY_READS


def test_names_of_strangers_are_shown_as_text_and_without_control_characters(nndoctor: Command, sick: Path) -> None:
    answer = nndoctor("diagnose", "--fail-on", "never")
    assert "</script><img src=x onerror=alert(1)>[/x][31m" in answer.out
    assert "\x1b" not in answer.out


def test_a_terminal_that_speaks_only_ascii_gets_an_answer(sick: Path, here: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path(package.__file__).parent.parent)}
    for arguments in (["diagnose", "--fail-on", "never"], ["watch", "--once"], ["ls"]):
        done = subprocess.run(
            [sys.executable, "-m", "nndoctor.cli.main", *arguments], capture_output=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.isascii()


# -- settings


def test_the_command_line_beats_the_environment_beats_the_file_beats_the_default(
    nndoctor: Command, here: Path, sick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nndoctor("diagnose").code == 1
    (here / "pyproject.toml").write_text('[tool.nndoctor]\nfail-on = "critical"\n')
    assert nndoctor("diagnose").code == 0
    monkeypatch.setenv("NNDOCTOR_FAIL_ON", "warning")
    assert nndoctor("diagnose").code == 1
    assert nndoctor("diagnose", "--fail-on", "never").code == 0


def test_config_show_tells_each_origin(nndoctor: Command, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "nndoctor.toml").write_text("budget = 0.02\n")
    monkeypatch.setenv("NNDOCTOR_CADENCE", "16")
    shown = json.loads(nndoctor("config", "show", "--json").out)
    assert shown["budget"] == {"value": 0.02, "origin": str(here / "nndoctor.toml")}
    assert shown["cadence"] == {"value": 16, "origin": "NNDOCTOR_CADENCE"}
    assert shown["ui"] == {"value": "auto", "origin": "default"}
    assert nndoctor("config", "show").verdict == "6 settings: 2 set, 4 by default."


def test_the_nearest_file_wins_and_its_paths_are_relative_to_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = here / "a" / "b"
    inner.mkdir(parents=True)
    (here / "pyproject.toml").write_text('[tool.nndoctor]\nrun_root = "runs"\n')
    (here / "a" / "pyproject.toml").write_text('[project]\nname = "other"\n')
    found = nearest_file(inner)
    assert found is not None
    assert found[0] == here / "pyproject.toml"
    assert load_settings(inner, {})["run_root"].value == "runs"  # as short as it can be from where we are
    monkeypatch.chdir(inner)
    assert load_settings(inner, {})["run_root"].value == str(here / "runs")
    (here / "a" / "nndoctor.toml").write_text('ui = "off"\n')
    settings = load_settings(inner, {})
    assert settings["ui"].value == "off"
    assert settings["run_root"].origin == "default"


def test_all_mistakes_of_a_file_are_told_at_once(here: Path, nndoctor: Command) -> None:
    (here / "nndoctor.toml").write_text('budgett = 1\nui = "fancy"\ncadence = 0.5\n')
    answer = nndoctor("ls")
    assert answer.code == 2
    assert "did you mean 'budget'?" in answer.err
    assert "ui: expected one of auto" in answer.err
    assert "cadence: expected a whole number" in answer.err


@pytest.mark.parametrize(
    ("name", "value"),
    [("BUDGET", "2"), ("BUDGET", "much"), ("CADENCE", "0"), ("UI", "x"), ("FAIL_ON", "bad"), ("RULES", ",")],
)
def test_a_wrong_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"NNDOCTOR_{name}"):
        load_settings(environment={f"NNDOCTOR_{name}": value})


def test_a_file_that_is_no_toml_is_named(here: Path) -> None:
    (here / "nndoctor.toml").write_text("budget = = 1")
    with pytest.raises(UsageError, match=r"nndoctor\.toml is not valid TOML"):
        load_settings()
