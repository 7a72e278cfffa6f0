"""The panel beside the progress bars that people use, in every kind of terminal: nothing lost, nothing garbled.

The screens of the programs whose output is always the same are kept in ``screens/`` as they were seen;
``UPDATE_SCREENS=1 pytest tests/terminal/test_bars.py`` writes them anew.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.terminal.bars_program import STEPS
from tests.terminal.tmux import PATIENCE, Tmux, available

pytestmark = pytest.mark.skipif(not available(), reason="tmux is not installed")

FOLDER = Path(__file__).parent
LINES = 24
VERDICT = "3 findings, 2 root causes: learning-rate-too-high, dead-relu -> set lr=2e-4 (nndoctor explain learning-rate-too-high)"


@dataclass(frozen=True)
class Cell:
    """A kind of terminal."""

    columns: int = 80
    environment: dict[str, str] = field(default_factory=dict)
    footer: bool = True  # else lines
    unicode: bool = True
    file: bool = False


CELLS = {
    "40": Cell(40),
    "80": Cell(),
    "200": Cell(200),
    "dumb": Cell(environment={"TERM": "dumb"}, footer=False),
    "no-colour": Cell(environment={"NO_COLOR": "1"}),
    "latin-1": Cell(environment={"PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1:replace"}, unicode=False),
    "c-locale": Cell(environment={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, unicode=False),
    "piped": Cell(footer=False, file=True),
}
KINDS = ("tqdm", "nested", "rich")
FRAMEWORKS = ("lightning", "transformers")


@dataclass
class Stage:
    """A program of ``bars_program.py`` in its terminal."""

    terminal: Tmux
    folder: Path

    def wait(self, cell: str, event: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not (self.folder / f"{cell}.{event}").exists():
            assert time.monotonic() < deadline, f"{cell}: not {event}; the screen is\n{self.terminal.screen()}"
            time.sleep(0.02)

    def tell(self, cell: str, event: str) -> None:
        (self.folder / f"{cell}.{event}").touch()

    def piped(self) -> list[str]:
        """The lines in the file that the program was piped to; what bars do to go back is where a line ends."""
        text = (self.folder / "piped.txt").read_bytes().decode()
        return [line.rstrip() for line in re.split(r"[\r\n]|\x1b\[A", text)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Tmux]:
    with Tmux(tmp_path_factory.mktemp("t"), repository) as tmux:
        yield tmux


@pytest.fixture(scope="module")
def stages(server: Tmux, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Stage]:
    """All programs at once, each in a terminal of its own: they start while others are looked at."""
    found = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        for name, cell in CELLS.items():
            (folder / f"{name}.start").touch()
            words = ["env", *(f"{key}={value}" for key, value in cell.environment.items())]
            words += [sys.executable, str(FOLDER / "bars_program.py"), kind, str(folder), name]
            redirection = f" > {shlex.quote(str(folder / 'piped.txt'))} 2>&1" if cell.file else ""
            terminal = server.open(f"{kind}-{name}", cell.columns, LINES, shlex.join(words) + redirection)
            found[kind, name] = Stage(terminal, folder)
    return found


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("kind", KINDS)
def test_bar_and_panel_share_the_terminal(kind: str, name: str, stages: dict[tuple[str, str], Stage]) -> None:
    stage, cell = stages[kind, name], CELLS[name]
    terminal = stage.terminal
    stage.wait(name, "paused")
    if cell.footer:
        terminal.wait(lambda: terminal.region() == (0, LINES - 9), "the panel of eight rows")
    stage.tell(name, "go")
    stage.wait(name, "paused-again")
    if cell.footer:
        terminal.wait(lambda: f"-{50}%/50 steps" in terminal.screen(), "the panel of the last step")
        the_footer_is_whole(terminal, cell)
    picture = terminal.screen()
    stage.tell(name, "go-on")
    stage.wait(name, "done")
    if cell.file:
        lines = stage.piped()
    else:
        terminal.wait(lambda: "program done" in terminal.screen(), "the end")
        assert terminal.region() == (0, LINES - 1), "the whole screen is given back"
        lines = [line.rstrip() for line in terminal.everything()]
    every_numbered_line_is_whole(lines)
    if cell.footer:
        assert sum("-- nndoctor" in line or "── nndoctor" in line for line in lines) == 1, "no copies of the panel"
        assert VERDICT in lines
    else:
        the_lines_are_whole(lines, findings=3)
    assert lines.count("program done") == 1
    if not cell.file and kind != "rich":  # rich's live display is drawn anew by the clock
        kept_or_equal(f"{kind}-{name}", picture, lines)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_trainers_bar_and_the_panel_share_the_terminal(framework: str, server: Tmux, tmp_path_factory: pytest.TempPathFactory) -> None:
    if find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    folder = tmp_path_factory.mktemp(framework)
    names = [name for name in CELLS if name != "c-locale"]  # one process for all: a locale is taken once
    command = shlex.join([sys.executable, "-W", "ignore", str(FOLDER / "bars_program.py"), framework, str(folder), *names])
    stage = Stage(server.open(framework, 80, LINES, command), folder)
    for name in names:
        trained_beside_its_bar(stage, name, CELLS[name])


def trained_beside_its_bar(stage: Stage, name: str, cell: Cell) -> None:
    """One training by a framework: its own bar, its own messages, our panel of a real run."""
    terminal = stage.terminal
    terminal.resize(cell.columns, LINES)
    terminal.forget()
    stage.tell(name, "start")
    stage.wait(name, "paused")
    stage.tell(name, "go")
    stage.wait(name, "paused-again")
    if cell.footer:
        terminal.wait(lambda: terminal.region() != (0, LINES - 1), f"{name}: the panel")
        the_footer_is_whole(terminal, cell)
    stage.tell(name, "go-on")
    stage.wait(name, "done")
    if cell.file:
        lines = stage.piped()
    else:
        terminal.wait(lambda: "program done" in terminal.screen(), f"{name}: the end")
        assert terminal.region() == (0, LINES - 1), f"{name}: the whole screen is given back"
        lines = [line.rstrip() for line in terminal.everything()]
    every_numbered_line_is_whole(lines)
    if cell.footer:
        assert sum("-- nndoctor" in line or "── nndoctor" in line for line in lines) == 1, f"{name}: no copies of the panel"
        words = " ".join(" ".join(lines).split())
        assert re.search(rf"No problems found in {STEPS} steps \((\d+ of )?\d+ rules, \d layers\)\.", words), f"{name}: {lines}"
    else:
        the_lines_are_whole(lines, findings=0)


# ---------------------------------------------------------------------------------------- what is asked of a screen


def every_numbered_line_is_whole(lines: list[str]) -> None:
    for step in range(0, STEPS, 3):
        assert [line for line in lines if f"[{step:03d}]" in line] == [f"[{step:03d}] line of the program end"]


def the_footer_is_whole(terminal: Tmux, cell: Cell) -> None:
    """Two to eight rows, a title over the full width, and the counts or the loss in the last row."""
    rows = terminal.screen().split("\n")[:LINES][terminal.region()[1] + 1 :]
    rule, good = ("── ", " ✓ ") if cell.unicode else ("-- ", " ok ")
    assert 2 <= len(rows) <= 8
    assert rows[0].startswith(f"{rule}nndoctor")
    assert len(rows[0]) == cell.columns
    assert rows[-1].startswith(good), rows
    assert all(len(row) <= cell.columns for row in rows)
    if not cell.unicode:
        assert all(row.isascii() for row in rows)
    colours = "\n".join(terminal.screen(colours=True).split("\n")[terminal.region()[1] + 1 : LINES])
    assert bool(re.search(r"\x1b\[(\d+;)*3[1-6]m", colours)) == ("NO_COLOR" not in cell.environment)


def the_lines_are_whole(lines: list[str], findings: int) -> None:
    """Each line of ours is one line, with nothing of the bars before or behind it."""
    ours = [line for line in lines if "nndoctor event=" in line]
    assert all(re.fullmatch(r'nndoctor( [a-z_]+=("([^"\\]|\\.)*"|[^\s"=]+))+', line) for line in ours), ours
    events = [line.split()[1] for line in ours]
    assert events[0] == "event=status"
    assert events[-1] == "event=end"
    assert events.count("event=finding") == findings
    assert "\x1b" not in "".join(ours)


def kept_or_equal(name: str, picture: str, lines: list[str]) -> None:
    """The screen in the middle and all that was left at the end, against what is kept."""
    seen = "\n".join([*(line.rstrip() for line in picture.rstrip("\n").split("\n")), "=" * 20, *lines]).rstrip() + "\n"
    path = FOLDER / "screens" / f"{name}.txt"
    if os.environ.get("UPDATE_SCREENS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(seen, encoding="utf-8")
    assert seen == path.read_text(encoding="utf-8")


