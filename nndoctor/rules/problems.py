"""What is wrong with a ruleset: where, why, and what to do; and how a person gets to read it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a ruleset.

    Args:
        message: what was found, and what was expected.
        source: the file, as the user named it.
        line, column: where, counted from 1; 0 where the whole file is meant.
        length: how many characters the caret line marks.
        text: the source line.
        help: what to do about it.
    """

    message: str
    source: str
    line: int = 0
    column: int = 0
    length: int = 1
    text: str = ""
    help: str = ""

    @property
    def position(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source

    def __str__(self) -> str:
        return f"{self.position}: {self.message}" + (f"; {self.help}" if self.help else "")

    def render(self) -> str:
        """The mistake with its source line and a caret under it, over several lines."""
        lines = [f"error: {self.message}", f"  --> {self.position}"]
        margin = " " * max(len(str(self.line)), 2)
        if self.line and self.text:
            shown, column = _excerpt(self.text, self.column)
            carets = "^" * max(1, min(self.length, len(shown) - column + 1))
            lines += [
                f" {margin} |",
                f" {self.line:>{len(margin)}} | {shown}",
                f" {margin} | {' ' * (column - 1)}{carets}",
            ]
        if self.help:
            lines.append(f" {margin} = help: {self.help}")
        return "\n".join(lines)


class RulesetError(Exception):
    """A ruleset that cannot be used; `problems` holds every mistake that was found, not only the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n\n".join(p.render() for p in self.problems))


def did_you_mean(word: str, known: Sequence[str], *, quantity: str = "") -> str:
    """``did you mean 'median'?``, or what there is where nothing is close and the choice is small."""
    close = get_close_matches(word[:80], known, n=1, cutoff=0.6)
    if not close:
        tail = word.rpartition(".")[2]
        close = [name for name in known if name.rpartition(".")[2] == tail and "." in name][:1]
    if close:
        return f"did you mean '{close[0]}'?"
    if len(known) <= 16:
        return f"expected one of: {', '.join(known)}"
    return quantity


def _excerpt(text: str, column: int) -> tuple[str, int]:
    """At most 110 characters of a line around `column`, control characters made visible."""
    clean = "".join(c if c.isprintable() else ("    " if c == "\t" else "�") for c in text)
    column = max(1, min(column + sum(3 for c in text[: column - 1] if c == "\t"), len(clean) + 1))
    if len(clean) <= 110:
        return clean, column
    begin = max(0, min(column - 40, len(clean) - 110))
    return clean[begin : begin + 110], column - begin
