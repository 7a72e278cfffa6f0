"""Every message of a command that cannot do what was asked: what was wrong, what to do, exit code 2, no traceback."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import nndoctor as package
from nndoctor.cli import pages
from nndoctor.rules import rulesets_folder

from .conftest import RULES, Command

MESSAGES = [
    # commands and options
    (("diagnos",), "did you mean diagnose?"),
    (("train.py",), "to train with it: nndoctor run -- train.py"),
    (("nonsense",), "there are run, demo, train, watch"),
    (("rules", "chek"), "did you mean check"),
    (("config", "shwo"), "did you mean show?"),
    (("diagnose", "--forma", "json"), "--format"),
    (("diagnose", "--format", "xml"), "'xml' is not one of 'text', 'json', 'md'"),
    (("diagnose", "--fail-on"), "'--fail-on' requires an argument"),
    (("diagnose", "--fail-on", "bad"), "expected one of info, warning, error, critical, never, got 'bad'"),
    (("diagnose", "sick", "healthy"), "unexpected extra argument(s) (healthy)"),
    (("completion", "tcsh"), "expected bash, zsh or fish, got 'tcsh'"),
    # which run
    (("diagnose", "nothing"), "no run 'nothing': not a folder with a run record, nor the name of a run in .nndoctor/runs"),
    (("diagnose", "20240102-sikc"), "did you mean 20240102-sick"),
    (("diagnose", "2024"), "'2024' could be any of 20240101-healthy, 20240102-sick in .nndoctor/runs: give more of the name"),
    (("diagnose", ""), "expected a run, got an empty name; leave it out for the newest run"),
    (("diagnose", "plain.txt"), "plain.txt is not a run: expected a run folder, or record.sqlite or record.frames in one"),
    (("diagnose", "folder"), "folder holds no run record: expected record.sqlite or record.frames in it"),
    (("diagnose", "hollow"), ".nndoctor/runs/hollow holds no run record"),
    (("diagnose", "odd"), "odd/record.sqlite is not a run record of nndoctor: expected the SQLite file that a run writes"),
    (("watch", "nothing", "--once"), "no run 'nothing'"),
    (("compare", "sick"), "two runs or more"),
    (("compare", "sick", "sick"), "the same run twice: 20240102-sick, 20240102-sick"),
    (("times", "sick", "--iteration", "999"), "--iteration: 999 was not sampled"),
    (("predict",), "no run in .nndoctor/runs has layer times: train with nndoctor.wrap(...) first"),
    (("ls", "--root", "plain.txt"), "plain.txt is a file; expected the folder that runs are recorded in"),
    (("watch", "--reset"), "there is no terminal here to reset: neither stderr nor stdout is one"),
    # what to judge by
    (("diagnose", "sick", "--rules", "vison"), "did you mean 'vision'?"),
    (("diagnose", "sick", "--rules", "none.yaml"), "there is no ruleset 'none.yaml'"),
    (("diagnose", "sick", "--rules", "latin.yaml"), "the file is not UTF-8 text (byte 0)"),
    (("diagnose", "sick", "--rules", "plain.txt"), "expected a mapping with 'version' and 'rules'"),
    (("diagnose", "sick", "--rules", "tab.yaml"), "help: indent with spaces, not tabs"),
    (("diagnose", "sick", "--rules", "empty.yaml"), "a ruleset begins with: version: 1"),
    (("diagnose", "sick", "--rules", "later.yaml"), "unknown version 99 of the rule language"),
    (("diagnose", "sick", "--rules", "folder"), "the folder holds no .yaml file"),
    (("diagnose", "sick", "--rules", "torchx:rules"), "the package 'torchx' is not installed"),
    (("explain", "dead-rellu"), "did you mean dead-relu"),
    (("explain", "xyzzy"), "see: nndoctor rules list"),
    (("rules", "show", "dead-rellu"), "did you mean dead-relu"),
    (("rules", "try", "loss +"), "loss +\n       ^"),
    (("rules", "try", "lss"), "did you mean 'loss'?"),
    (("rules", "try", "observed.return > 1"), "'return' is a reserved word"),
    (("rules", "backtest", "none.yaml"), "there is no ruleset 'none.yaml'"),
    (("rules", "new", "Bad Id"), "lower-case words and digits with hyphens, as in bad-id"),
    (("ack", "sick", "x", "--reason", "because"), "20240102-sick has no finding 'x'; it has layer-is-loud, loss-stays-high"),
    (("ack", "sick", "loss-stays-high"), "--reason: say why it is fine"),
    (("ack", "sick", "loss-stays-high", "--remove"), "is not acknowledged in 20240102-sick; nndoctor ack 20240102-sick lists what is"),
    # where to write
    (("report", "-o", "x.pdf"), "expected .html, .json, .md, .txt"),
    (("report", "-o", "nowhere/x.html"), "there is no folder 'nowhere'; create it first"),
    (("report", "-o", "folder"), "it is a folder; name a file in it, such as report.html"),
    (("compare", "sick", "20240101", "-o", "x.txt"), "expected a file that ends in .html, .json or .md"),
    (("times", "sick", "--export", "x.foo"), "expected a name that ends in .csv, .parquet, .json, got .foo"),
    # what to run
    (("run",), "expected a script, got nothing; try: nndoctor run -- train.py --epochs 3"),
    (("run", "missing.py"), "no such script: 'missing.py'"),
    (("run", "python", "train.py", "--lr", "1"), "leave python out: nndoctor run -- train.py --lr 1"),
    (("run", "folder"), "'folder' is a folder; expected a script in it, or a module: nndoctor run -m package.module"),
    (("run", "-m"), "expected a module name after -m"),
    (("run", "--ui", "fancy", "fine.py"), "expected one of auto, footer, lines, notebook, off, got 'fancy'"),
    (("run", "--budget", "7", "fine.py"), "less than or equal to 1"),
    (("run", "--cadence", "0", "fine.py"), "greater than or equal to 1"),
    (("run", "--context", "gann=no", "fine.py"), "did you mean 'gan'?"),
    (("run", "--rules", "none.yaml", "fine.py"), "there is no ruleset 'none.yaml'"),
    (("run", "--report", "nowhere/x.html", "fine.py"), "there is no folder 'nowhere'; create it first"),
    (("run", "--json", "nowhere/x.json", "fine.py"), "there is no folder 'nowhere'; create it first"),
    (("demo", "--steps", "0"), "--steps: expected at least 1, got 0"),
    (("train", "-m", "lenett"), "no model is called 'lenett'"),
]


@pytest.fixture
def mess(here: Path, sick: Path, healthy: Path) -> None:
    """Runs and files beside some that are none."""
    (here / "folder").mkdir()
    (here / "plain.txt").write_text("hello\n")
    (here / "latin.yaml").write_bytes(b"\xff\xfe\x00")
    (here / "tab.yaml").write_text("rules:\n\t- id: x\n")
    (here / "empty.yaml").write_text("")
    (here / "later.yaml").write_text("version: 99\nrules: []\n")
    (here / "fine.py").write_text("print('ran')\n")
    (sick.parent / "hollow").mkdir()
    (sick.parent / "odd").mkdir()
    (sick.parent / "odd" / "record.sqlite").write_text("not a database " * 100)


@pytest.mark.usefixtures("mess")
@pytest.mark.parametrize(("arguments", "said"), MESSAGES, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_a_mistake_is_told_with_what_to_do(nndoctor: Command, arguments: tuple[str, ...], said: str) -> None:
    answer = nndoctor(*arguments)
    assert answer.code == 2, answer.err
    assert said in answer.err
    assert answer.out == ""
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("command", ["diagnose", "report", "watch", "times", "predict", "ack", "compare", "rules try"])
def test_without_a_run_every_command_says_how_to_make_one(nndoctor: Command, command: str) -> None:
    more = {"ack": ["x"], "compare": ["a", "b"], "rules try": ["loss"]}.get(command, [])
    answer = nndoctor(*command.split(), *more)
    assert answer.code == 2
    assert "train with nndoctor.wrap(...)" in answer.err


def test_a_record_of_a_later_version_says_which_and_what_is_read(nndoctor: Command, sick: Path) -> None:
    with closing(sqlite3.connect(sick / "record.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 99")
    answer = nndoctor("diagnose")
    assert answer.code == 2
    assert "no runs in" in answer.err, "the newest run that can be read"
    answer = nndoctor("diagnose", "sick")
    assert answer.code == 2
    assert "was written by a newer nndoctor: its format is version 99" in answer.err


def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    nndoctor: Command, sick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    answer = nndoctor("times", "sick", "--export", "times.parquet")
    assert answer.code == 2
    assert "pyarrow" in answer.err
    assert "pip install" in answer.err


SCRIPTS = [
    ("raise ValueError('my mistake')", 1, "ValueError: my mistake"),
    ("import sys; sys.exit(7)", 7, ""),
    ("import sys; sys.exit('no data here')", 1, "no data here"),
    ("def broken(:\n", 1, "SyntaxError"),
    ("import nothing_of_this_name", 1, "No module named 'nothing_of_this_name'"),
    ("raise KeyboardInterrupt", 130, "interrupted"),
    ("1 / 0", 1, "nothing was diagnosed: the script ended before its training began"),
    ("print('fine')", 0, "nothing was diagnosed: no backward() was seen"),
]


@pytest.mark.parametrize("written", ["trian.py", "train", "train.pyy"])
def test_a_script_whose_name_is_nearly_right_is_suggested(nndoctor: Command, here: Path, written: str) -> None:
    (here / "train.py").write_text("print('fine')")
    answer = nndoctor("run", written)
    assert answer.code == 2
    assert "did you mean train.py?" in answer.err


@pytest.mark.parametrize(("code", "exit_code", "said"), SCRIPTS, ids=[code[:24] for code, _, _ in SCRIPTS])
def test_a_script_ends_as_it_would_without_the_doctor(nndoctor: Command, here: Path, code: str, exit_code: int, said: str) -> None:
    (here / "train.py").write_text(code)
    answer = nndoctor("run", "--ui", "off", "--rules", str(rule_file(here)), "train.py")
    assert answer.code == exit_code
    assert said in answer.err
    assert "mistake of nndoctor" not in answer.err
    assert "runpy" not in answer.err, "the traceback begins in the script"


def rule_file(folder: Path) -> Path:
    """One rule: to read all of them takes longer than these scripts."""
    path = folder / "rule.yaml"
    path.write_text(RULES)
    return path


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
