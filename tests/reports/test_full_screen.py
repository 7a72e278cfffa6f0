"""The screen of ``watch``: what is on it, and how little is sent to change it."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console
from rich.text import Text

from nndoctor.reports.full_screen import FullScreen
from nndoctor.reports.scroll_region import Size
from tests.reports.emulator import Emulator

SIZE = Size(20, 4)


class Terminal:
    """What a screen writes, each time as one string, and what a terminal makes of it."""

    def __init__(self) -> None:
        self.file = StringIO()
        self.emulator = Emulator(*SIZE)
        self.screen = FullScreen(Console(file=self.file, width=SIZE.columns, height=SIZE.lines, force_terminal=True))

    def draw(self, *lines: str | Text, size: Size = SIZE) -> str:
        self.screen.draw([Text(line) if isinstance(line, str) else line for line in lines], size)
        written = self.file.getvalue()
        self.file.seek(0)
        self.file.truncate()
        self.emulator.feed(written)
        return written


def test_what_is_drawn_stands_there_and_the_rest_is_empty() -> None:
    terminal = Terminal()
    terminal.emulator.feed("left by somebody\r\nelse\r\n")
    terminal.draw("one", "two")
    assert terminal.emulator.visible() == ["one", "two", "", ""]
    terminal.draw("1", "two", "three", "four")
    assert terminal.emulator.visible() == ["1", "two", "three", "four"]
    terminal.draw("1")
    assert terminal.emulator.visible() == ["1", "", "", ""]


def test_only_rows_that_changed_are_sent_and_none_means_nothing() -> None:
    terminal = Terminal()
    terminal.draw("step 1", "the same")
    written = terminal.draw("step 2", "the same")
    assert "step 2" in written
    assert "the same" not in written
    assert terminal.draw("step 2", "the same") == ""


def test_a_row_that_only_changes_its_colour_is_sent() -> None:
    terminal = Terminal()
    terminal.draw("sick")
    assert "\x1b[31msick" in terminal.draw(Text("sick", style="red"))


def test_another_size_draws_everything_anew_and_so_does_forgetting() -> None:
    terminal = Terminal()
    terminal.draw("one", "two")
    terminal.emulator.resize(10, 3)
    assert "two" in terminal.draw("one", "two", size=Size(10, 3))
    terminal.emulator.feed("\x1b[1;1Hgarbage")
    assert terminal.draw("one", "two", size=Size(10, 3)) == ""
    terminal.screen.forget()
    terminal.draw("one", "two", size=Size(10, 3))
    assert terminal.emulator.visible() == ["one", "two", ""]


def test_a_row_that_is_too_wide_is_cut_and_never_reaches_the_next() -> None:
    terminal = Terminal()
    terminal.draw("x" * 50, "y" * 20, "", "z" * 21)
    assert terminal.emulator.visible() == ["x" * 20, "y" * 20, "", "z" * 20]
    assert terminal.emulator.everything() == terminal.emulator.visible(), "nothing scrolled away"


def test_the_screen_of_before_and_the_cursor_come_back_whatever_happens() -> None:
    terminal = Terminal()
    with pytest.raises(RuntimeError), terminal.screen:
        raise RuntimeError
    written = terminal.file.getvalue()
    assert written.index("\x1b[?1049h") < written.index("\x1b[?25l") < written.index("\x1b[?25h") < written.index("\x1b[?1049l")
