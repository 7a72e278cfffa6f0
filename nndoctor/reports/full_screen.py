"""A full screen of which only the rows that changed are sent: little over a slow connection, nothing while nothing happens."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.text import Text

from nndoctor.reports.scroll_region import BEGIN, END, ERASE_LINE_END, PLAIN, WRAP_OFF, WRAP_ON, Size

_ERASE_SCREEN = "\x1b[1;1H\x1b[J"


class FullScreen:
    """The terminal's second screen, without a cursor, while the block lasts; then what stood there before is back."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._size = Size(0, 0)
        self._shown: list[str] = []

    def __enter__(self) -> FullScreen:
        self._console.set_alt_screen(True)
        self._console.show_cursor(False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._console.show_cursor(True)
        self._console.set_alt_screen(False)

    def draw(self, lines: Sequence[Text], size: Size) -> None:
        """Show `lines` from the top. One write, between marks that keep a terminal from showing it half drawn."""
        rows = [self._row(line, size.columns) for line in lines[: size.lines]]
        rows += [""] * (size.lines - len(rows))
        whole = size != self._size
        changed = [number for number, row in enumerate(rows) if whole or row != self._shown[number]]
        self._size, self._shown = size, rows
        if not changed:
            return
        drawn = "".join(f"\x1b[{number + 1};1H{ERASE_LINE_END}{rows[number]}{PLAIN}" for number in changed)
        self._console.file.write(f"{BEGIN}{WRAP_OFF}{PLAIN}{_ERASE_SCREEN if whole else ''}{drawn}{WRAP_ON}{END}")
        self._console.file.flush()

    def forget(self) -> None:
        """Draw everything the next time: somebody else has written on the screen."""
        self._size = Size(0, 0)

    def _row(self, line: Text, columns: int) -> str:
        with self._console.capture() as captured:
            self._console.print(line, end="", no_wrap=True, overflow="crop", width=columns)
        return captured.get()
