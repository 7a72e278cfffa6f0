"""A terminal in 100 lines: enough of one to see where the footer's escape sequences put things, and what scrolls away.

It knows what the footer uses (and no more; anything else is an error): line feed with carriage return, index, cursor
up, down and to a place, save and restore, scroll region, erase to the end of line and screen, private modes, colours.
"""

from __future__ import annotations

import re

TOKEN = re.compile(r"\x1b\[(?P<private>\??)(?P<numbers>[\d;]*)(?P<final>[A-Za-z])|\x1b(?P<escape>[78D])|(?P<text>[^\x1b])", re.DOTALL)


class Emulator:
    def __init__(self, columns: int, lines: int) -> None:
        self.columns, self.lines = columns, lines
        self.screen = [[" "] * columns for _ in range(lines)]
        self.history: list[str] = []
        self.row = self.column = 0
        self.top, self.bottom = 0, lines - 1  # scroll region, inclusive
        self.saved = (0, 0)
        self.modes: dict[str, bool] = {"7": True}
        self.writes = 0

    def feed(self, text: str) -> None:
        position = 0
        self.writes += bool(text)
        while position < len(text):
            token = TOKEN.match(text, position)
            assert token is not None, f"unknown sequence {text[position : position + 8]!r}"
            position = token.end()
            if token["text"] is not None:
                self._text(token["text"])
            elif token["escape"] is not None:
                {"7": self._save, "8": self._restore, "D": self._index}[token["escape"]]()
            else:
                self._control(token["final"], [int(n) if n else 0 for n in token["numbers"].split(";")], bool(token["private"]))

    def everything(self) -> list[str]:
        """Scrollback and screen, without the blank lines at the end."""
        lines = [*self.history, *("".join(row).rstrip() for row in self.screen)]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def visible(self) -> list[str]:
        return ["".join(row).rstrip() for row in self.screen]

    def resize(self, columns: int, lines: int) -> None:
        """As tmux does it: forget the scroll region, cut below the cursor first, then push into the scrollback."""
        if (columns, lines) == (self.columns, self.lines):
            return
        while self.lines > lines:
            if self.row < self.lines - 1:
                self.screen.pop()
            else:
                self.history.append("".join(self.screen.pop(0)).rstrip())
                self.row -= 1
            self.lines -= 1
        self.screen += [[" "] * columns for _ in range(lines - self.lines)]
        self.screen = [(row + [" "] * columns)[:columns] for row in self.screen]
        self.columns, self.lines = columns, lines
        self.top, self.bottom = 0, lines - 1
        self.column = min(self.column, columns - 1)

    def _text(self, character: str) -> None:
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self.column = 0
            self._index()
        else:
            if self.column >= self.columns:
                if self.modes["7"]:
                    self.column = 0
                    self._index()
                else:
                    self.column = self.columns - 1
            self.screen[self.row][self.column] = character
            self.column += 1

    def _control(self, final: str, numbers: list[int], private: bool) -> None:
        if private:
            assert final in "hl", final
            self.modes[str(numbers[0])] = final == "h"
        elif final == "m":
            pass
        elif final == "A":
            self.row = max(self.top if self.row >= self.top else 0, self.row - max(1, numbers[0]))
        elif final == "B":
            limit = self.bottom if self.row <= self.bottom else self.lines - 1
            self.row = min(limit, self.row + max(1, numbers[0]))
        elif final == "H":
            self.row, self.column = min(self.lines, max(1, numbers[0])) - 1, min(self.columns, max(1, numbers[-1])) - 1
        elif final == "K":
            column = min(self.column, self.columns - 1)  # after a full row, the cursor stands on its last cell
            self.screen[self.row][column:] = [" "] * (self.columns - column)
        elif final == "J":
            self._control("K", [0], False)
            self.screen[self.row + 1 :] = [[" "] * self.columns for _ in range(self.lines - self.row - 1)]
        elif final == "r":
            self.top, self.bottom = max(1, numbers[0]) - 1, (numbers[1] if len(numbers) > 1 else self.lines) - 1
            self.row = self.column = 0
        else:
            raise AssertionError(f"unknown control {final!r}")

    def _index(self) -> None:
        if self.row == self.bottom:
            line = self.screen.pop(self.top)
            if self.top == 0:
                self.history.append("".join(line).rstrip())
            self.screen.insert(self.bottom, [" "] * self.columns)
        elif self.row < self.lines - 1:
            self.row += 1

    def _save(self) -> None:
        self.saved = (self.row, self.column)

    def _restore(self) -> None:
        self.row, self.column = min(self.saved[0], self.lines - 1), min(self.saved[1], self.columns)
