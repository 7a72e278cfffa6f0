"""``nndoctor watch`` in a real terminal, driven by its keys, from the first step of a run to the loss of its folder."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nndoctor.acknowledged import FILE, acknowledge
from nndoctor.record import RecordWriter, RunFacts
from tests.reports.panel_cases import CAUSE, SECOND_CAUSE, SYMPTOM, TARGETS
from tests.reports.record_cases import frame, sick_run, writer
from tests.terminal.tmux import Tmux, available

pytestmark = pytest.mark.skipif(not available(), reason="tmux is not installed")


@pytest.fixture
def terminal(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Tmux]:
    with Tmux(tmp_path_factory.mktemp("t"), repository, 100, 30) as tmux:
        yield tmux


def a_process_that_is_gone(work: Callable[[], object]) -> None:
    """`work` done by a process that then ends without a word, as after ``kill -9``."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def train(record: RecordWriter, steps: range) -> None:
    for step in steps:
        record.frame(frame(step))
    record.flush()


def test_watch_may_be_started_before_the_training_and_goes_on_to_the_next_one(terminal: Tmux, tmp_path: Path) -> None:
    root = tmp_path / ".nndoctor" / "runs"
    terminal.run("cd", tmp_path)
    terminal.run(sys.executable, "-m", "nndoctor.cli.main", "watch")
    terminal.wait_for("Waiting for the first run in")
    sick_run(root / "20260101-first")
    terminal.wait_for("f findings")
    assert "finished" in terminal.screen()
    RecordWriter(root / "20260102-second", RunFacts("second", 2000.0, {}), TARGETS).close()
    terminal.wait_for("20260102-second has begun")
    assert "nndoctor · second · step 0" in terminal.screen()
    terminal.key("q")
    terminal.wait_for("No problems found in 0 steps.")


def test_a_run_is_followed_from_its_first_step_to_the_loss_of_its_folder(terminal: Tmux, tmp_path: Path) -> None:
    shared = tmp_path / "shared folder"
    run = shared / "20260102-mini"
    sick_run(shared / "20260101-older")
    killed = shared / "20260103-killed"
    a_process_that_is_gone(lambda: train(writer(killed), range(1, 20)))
    record = writer(run, planned_steps=1000, rules_loaded=58)
    terminal.run(sys.executable, "-m", "nndoctor.cli.main", "watch", run)
    terminal.wait_for("Nothing has been measured yet")
    terminal.wait(lambda: terminal.screen().split("\n")[29].startswith(" f findings  l layers  e explain  a acknowledge  u runs  o overview  r write report  q quit"), "the keys")

    train(record, range(1, 61))
    terminal.wait_for("step 60/1000")
    terminal.wait_for("no problems found so far")
    for curve in ("loss", "lr", "grad", "upd/w", "layers"):
        assert f" {curve} " in terminal.screen()
    train(record, range(61, 101))
    record.findings((CAUSE, SYMPTOM, SECOND_CAUSE))
    record.flush()
    terminal.wait_for("FIX lr=2e-4")

    terminal.key("f")
    terminal.wait_for("The loss rose by 44% while updates were 2% of the weights.")
    terminal.wait_for("median(update.ratio, 50) = 0.02 > 0.01")
    terminal.key("e")
    terminal.wait_for("What it checks")
    terminal.key("l")
    terminal.wait_for("gradient")
    terminal.wait_for("block.7.conv")

    terminal.key("a")
    terminal.wait_for("why is learning-rate-too-high fine?")
    terminal.type("It's quick on purpose")
    terminal.wait_for("It's quick on purpose_")
    terminal.key("Enter")
    terminal.wait_for("acknowledged: learning-rate-too-high")
    assert [(a["rule"], a["reason"]) for a in json.loads((run / FILE).read_text())] == [("learning-rate-too-high", "It's quick on purpose")]
    terminal.wait_for("It's quick on purpose")
    acknowledge(run, ["dead-relu"], "said in another terminal")
    terminal.key("o")
    terminal.wait_for("2 acknowledged")

    terminal.key("r")
    terminal.wait_for("report written:")
    assert (run / "report.html").stat().st_size > 10_000

    terminal.key("u")
    terminal.wait_for("20260101-older")
    screen = terminal.screen()
    assert "finished" in next(line for line in screen.split("\n") if "20260101-older" in line)
    assert "killed" in next(line for line in screen.split("\n") if "20260103-killed" in line)
    assert "running" in next(line for line in screen.split("\n") if "20260102-mini" in line)

    terminal.key("Escape")
    record.close()
    terminal.wait_for("finished")
    shutil.rmtree(run)
    terminal.wait_for("is gone; this is what was read of it")
    terminal.key("q")
    terminal.wait(lambda: "f findings" not in terminal.screen(), "the screen of before")
    terminal.run("echo", "still", "usable")
    terminal.wait(lambda: "still usable" in terminal.screen().splitlines(), "the echo, typed and seen")


def test_ctrl_z_gives_the_terminal_back_and_fg_goes_on_where_it_was(terminal: Tmux, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "20260101-first"
    sick_run(run)
    terminal.run(sys.executable, "-m", "nndoctor.cli.main", "watch", run)
    terminal.wait_for("f findings")
    terminal.key("l")
    terminal.wait_for("gradient")
    terminal.key("C-z")
    terminal.wait_for("Stopped")
    assert "gradient" not in terminal.screen(), "the screen of before"
    terminal.run("echo", "in", "between")
    terminal.wait(lambda: "in between" in terminal.screen().splitlines(), "the echo, typed and seen")
    terminal.run("fg")
    terminal.wait_for("gradient")
    terminal.key("f")
    terminal.wait_for("evidence")
    terminal.key("q")
    terminal.wait_for("4 findings, 2 root causes")


def test_a_killed_run_is_shown_and_a_small_terminal_has_room_for_the_cause(terminal: Tmux, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "20260103-killed"

    def sick_until_killed() -> None:
        record = writer(run, rules_loaded=58)
        train(record, range(1, 50))
        record.findings((CAUSE,))
        record.flush()

    a_process_that_is_gone(sick_until_killed)
    terminal.resize(40, 12)
    terminal.run(sys.executable, "-m", "nndoctor.cli.main", "watch", run)
    terminal.wait_for("FIX lr=2e-4")
    assert "killed" in terminal.screen()
    terminal.key("C-c")
    terminal.wait(lambda: "1 finding, 1 root cause" in terminal.screen().replace("\n", ""), "the verdict")
