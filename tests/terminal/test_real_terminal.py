"""The footer and the watch screen in a real terminal: nothing lost, nothing garbled, everything given back."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.terminal.tmux import Tmux, available

pytestmark = pytest.mark.skipif(not available(), reason="tmux is not installed")

FOLDER = Path(__file__).parent


@pytest.fixture
def terminal(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Tmux]:
    # A socket's path must be short, which pytest's folders named after tests are not.
    with Tmux(tmp_path_factory.mktemp("t"), repository) as tmux:
        yield tmux


def small(terminal: Tmux, how: str) -> int:
    """Start the small program, wait for its panel, and return its process id."""
    terminal.run(sys.executable, FOLDER / "small_program.py", how)
    terminal.wait(lambda: terminal.region() == (0, 15), "the panel of eight rows")
    terminal.wait(lambda: re.search(r"pid \d+", terminal.screen()) is not None, "the line below the panel")
    found = re.search(r"pid (\d+)", terminal.screen())
    assert found is not None
    return int(found[1])


def test_no_output_is_lost_or_garbled_while_the_terminal_shrinks_and_grows(terminal: Tmux, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    terminal.run("seq", "-f", "before %g", "30")
    terminal.wait_for("before 30")
    terminal.run(sys.executable, FOLDER / "noisy_program.py", "footer", "0.01", stop)
    terminal.wait(lambda: terminal.region() == (0, 21), "the panel of two rows")
    terminal.wait(lambda: terminal.region() == (0, 15), "the panel of eight rows")
    assert "FIX lr=2e-4" in terminal.screen()
    terminal.resize(60, 18)
    terminal.wait(lambda: terminal.region() == (0, 11), "the panel of six rows")
    terminal.wait_for("FIX lr=2e-4")
    terminal.resize(120, 40)
    terminal.wait(lambda: terminal.region() == (0, 31), "the panel in the large terminal")
    stop.touch()
    terminal.wait_for("program done after")
    terminal.wait(lambda: terminal.region() == (0, 39), "the whole screen")
    done = re.search(r"program done after (\d+) rounds", terminal.screen())
    assert done is not None
    rounds = int(done[1])
    assert rounds > 60
    terminal.run("echo", "still", "usable")
    terminal.wait(lambda: "still usable" in terminal.screen().splitlines(), "the echo")
    lines = [line.rstrip() for line in terminal.everything()]
    for number in range(1, 31):
        assert lines.count(f"before {number}") == 1
    kinds = ("through tqdm.write", "printed", "logged", "written to the descriptor", "put by libc")
    for step in range(rounds):
        expected = f"[{step:04d}] {kinds[step % 5]} end"
        assert [line.removeprefix("INFO ") for line in lines if f"[{step:04d}]" in line] == [expected]
    for step in range(0, rounds, 20):
        # While a shell runs in the foreground, Python's handlers wait: what it prints within a fifth of a second of a
        # change of size stands over the panel's old rows, whose ends show behind it.
        assert len([line for line in lines if line.startswith(f"<{step:04d}> echoed by a shell end")]) == 1
    titles = [line for line in lines if "── nndoctor" in line]
    assert len(titles) == 1, "the panel stays once, as the last word, and leaves no copies in the scrollback"
    assert "3 findings, 2 root causes: learning-rate-too-high, dead-relu -> set lr=2e-4 (nndoctor explain learning-rate-too-high)" in lines


def test_sigterm_gives_the_terminal_back_and_keeps_the_exit_status(terminal: Tmux) -> None:
    os.kill(small(terminal, "sleep"), signal.SIGTERM)
    terminal.wait(lambda: terminal.region() == (0, 23), "the whole screen")
    terminal.type("echo status $?")
    terminal.key("Enter")
    terminal.wait_for("status 143")
    assert "── nndoctor" not in terminal.screen()


def test_an_exception_gives_the_terminal_back_below_its_traceback(terminal: Tmux) -> None:
    small(terminal, "raise")
    terminal.wait(lambda: terminal.region() == (0, 23), "the whole screen")
    terminal.wait_for("RuntimeError: as told")
    assert "FIX lr=2e-4" in terminal.screen()


def test_ctrl_c_gives_the_terminal_back(terminal: Tmux) -> None:
    small(terminal, "sleep")
    terminal.key("C-c")
    terminal.wait(lambda: terminal.region() == (0, 23), "the whole screen")
    terminal.wait_for("KeyboardInterrupt")


def test_children_that_end_leave_the_panel_where_it_is(terminal: Tmux) -> None:
    process = small(terminal, "fork")
    terminal.wait_for("child ended with -15")
    assert terminal.region() == (0, 15)
    assert "FIX lr=2e-4" in terminal.screen()
    os.kill(process, signal.SIGTERM)
    terminal.wait(lambda: terminal.region() == (0, 23), "the whole screen")


def test_a_killed_program_leaves_its_rows_and_reset_gives_them_back(terminal: Tmux) -> None:
    os.kill(small(terminal, "sleep"), signal.SIGKILL)
    terminal.wait_for("Killed")
    assert terminal.region() == (0, 15)
    terminal.run(sys.executable, "-c", "from nndoctor.reports.terminal import reset_terminal; reset_terminal()")
    terminal.wait(lambda: terminal.region() == (0, 23), "the whole screen")
    assert "── nndoctor" not in terminal.screen()


def test_a_terminal_of_fewer_than_sixteen_rows_keeps_them_all(terminal: Tmux) -> None:
    terminal.resize(80, 15)
    terminal.run(sys.executable, FOLDER / "noisy_program.py", "auto", "0", "40")
    terminal.wait_for("program done after 40 rounds")
    assert terminal.region() == (0, 14)
    lines = terminal.everything()
    assert not any("── nndoctor" in line for line in lines)
    assert len([line for line in lines if line.startswith("nndoctor event=finding")]) == 3
    kinds = ("through tqdm.write", "printed", "logged", "written to the descriptor", "put by libc")
    for step in range(40):
        assert [line.rstrip().removeprefix("INFO ") for line in lines if f"[{step:04d}]" in line] == [f"[{step:04d}] {kinds[step % 5]} end"]


CTRL_C = """
import time, torch, nndoctor
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for step in range(100000):
    optimizer.zero_grad()
    torch.nn.functional.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1)).backward()
    optimizer.step()
    time.sleep(0.01)
"""


def test_ctrl_c_ends_nndoctor_run_with_the_verdict_and_130(terminal: Tmux, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(CTRL_C)
    terminal.run("cd", tmp_path)
    terminal.run(sys.executable, "-m", "nndoctor.cli.main", "run", "train.py")
    terminal.wait(lambda: "── nndoctor · train · step" in terminal.screen(), "the panel")
    terminal.key("C-c")
    terminal.wait_for("nndoctor: interrupted")
    terminal.wait(lambda: terminal.region() == (0, 23), "the whole screen")
    terminal.wait_for("nndoctor: run recorded in .nndoctor/runs/")
    terminal.wait(lambda: re.search(r" in \d+ steps? \(", terminal.screen()) is not None, "the verdict")
    terminal.type("echo status $?")
    terminal.key("Enter")
    terminal.wait_for("status 130")
    assert sum("── nndoctor" in line for line in terminal.everything()) == 1


def test_watch_fills_the_screen_follows_its_size_and_leaves_the_verdict(terminal: Tmux, tmp_path: Path) -> None:
    run = tmp_path / "run"
    code = f"from tests.reports.record_cases import sick_run; from pathlib import Path; sick_run(Path({str(run)!r}))"
    terminal.run(sys.executable, "-c", code)
    code = f"from nndoctor.reports.watch import watch; from pathlib import Path; watch(Path({str(run)!r}))"
    terminal.run(sys.executable, "-c", code)
    terminal.wait_for("FIX lr=2e-4")
    terminal.key("f")
    terminal.wait_for(">✖ learning rate too high")
    terminal.key("Down")
    terminal.wait_for(">▲ dead relu")
    terminal.key("l")
    terminal.wait_for("gradient")
    terminal.resize(120, 40)
    terminal.wait(lambda: terminal.screen().splitlines()[39].startswith(" f findings"), "the keys in the last row")
    terminal.key("q")
    terminal.wait_for("4 findings, 2 root causes")
    terminal.wait(lambda: "f findings" not in terminal.screen(), "the screen of before")
    terminal.run("echo", "still", "usable")
    terminal.wait(lambda: "still usable" in terminal.screen().splitlines(), "the echo, typed and seen")
