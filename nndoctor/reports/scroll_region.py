"""The escape sequences that keep a few rows at the bottom of a terminal to ourselves.

A scroll region (DECSTBM) ends above our rows, so whatever the user's program prints, through Python or not, scrolls
above them as it would on a shorter screen, into the same scrollback. Pure: nothing here writes or reads the terminal.

Invariants the sequences rely on, true for any output made of lines:

* what lies below the user's cursor is ours, so it may be erased when our rows move;
* going down by *index* (ESC D) and up again by as much makes room below the cursor, scrolls only if there is none,
  keeps the column (a line feed would not), and does nothing at all where the room is already reserved.

A frame saves and restores the cursor with its colours (DECSC, DECRC), switches automatic wrapping off while it draws,
lest a row that turns out too wide spills over, and sits between synchronized-output marks, so that no terminal that
knows them shows it half drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"
SAVE, RESTORE = "\x1b7", "\x1b8"
WHOLE_SCREEN = "\x1b[r"
PLAIN, WRAP_OFF, WRAP_ON = "\x1b[0m", "\x1b[?7l", "\x1b[?7h"
ERASE_LINE_END = "\x1b[K"
INDEX = "\x1bD"
ERASE_BELOW_NEXT_LINE = "\x1b[B\r\x1b[J"


class Size(NamedTuple):
    columns: int
    lines: int


class ScrollRegion:
    """Remembers what is on screen and says what to write next. Feed every string it returns to the terminal."""

    def __init__(self) -> None:
        self.rows = 0
        """Rows reserved now."""
        self._size = Size(0, 0)
        self._shown: tuple[str, ...] = ()

    def frame(self, lines: Sequence[str], size: Size, *, renew: bool = False) -> str:
        """What to write so that `lines` (with colours, without cursor movements) stand in the last rows of the screen.

        Only rows that differ from what they show are drawn; empty if none does. A change of `size` or of the number
        of rows moves the region. `renew` reserves and draws all of it again, in case another program has undone it.
        """
        lines = tuple(lines)
        if not lines:
            return self.release(size)
        moved = size != self._size or len(lines) != self.rows
        if not moved and not renew and lines == self._shown:
            return ""
        reserve = self._reserve(len(lines), size, erase=moved and self.rows > 0) if moved or renew else ""
        top = size.lines - len(lines)
        drawn = "".join(
            f"\x1b[{top + 1 + row};1H{ERASE_LINE_END}{line}{PLAIN}"  # erased first: after a full row it would hit its end
            for row, line in enumerate(lines)
            if reserve or line != self._shown[row]
        )
        self.rows, self._size, self._shown = len(lines), size, lines
        return f"{BEGIN}{reserve}{SAVE}{PLAIN}{WRAP_OFF}{drawn}{WRAP_ON}{RESTORE}{END}"

    def release(self, size: Size) -> str:
        """What to write so that the whole screen is the user's again; the cursor stays where it is."""
        if not self.rows:
            return ""
        self.rows, self._size, self._shown = 0, size, ()
        return f"{BEGIN}{SAVE}{WHOLE_SCREEN}{RESTORE}{_room_below(1)}{SAVE}{PLAIN}{ERASE_BELOW_NEXT_LINE}{RESTORE}{END}"

    def _reserve(self, rows: int, size: Size, *, erase: bool) -> str:
        """End the region `rows` above the bottom, with the cursor inside it, before one line of the user's."""
        forget = f"{PLAIN}{ERASE_BELOW_NEXT_LINE}" if erase else ""
        region = f"\x1b[1;{size.lines - rows}r"  # homes the cursor, hence the saving around it
        return f"{SAVE}{WHOLE_SCREEN}{RESTORE}{_room_below(rows)}{SAVE}{forget}{region}{RESTORE}"


def reset_sequence() -> str:
    """What to write to a terminal whose footer was left behind by a killed process.

    Whole screen as scroll region, wrapping on, cursor shown, colours off, and the rows below the cursor erased.
    """
    return (
        f"\x1b[?2026l{SAVE}{WHOLE_SCREEN}{RESTORE}{_room_below(1)}{SAVE}{PLAIN}{ERASE_BELOW_NEXT_LINE}{RESTORE}"
        f"{PLAIN}{WRAP_ON}\x1b[?25h"
    )


def _room_below(rows: int) -> str:
    return f"{INDEX * rows}\x1b[{rows}A"
