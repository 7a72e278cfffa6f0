"""Curves in a terminal: braille dots, or letters where the terminal has no braille or several curves no colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from nndoctor.reports.charts import number, ticks

COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")
LETTERS = "ABCDEFGHIJ"
LOG_FROM = 100.0
"""Positive values that span more than this factor are drawn on a logarithmic scale."""

FAR_OUT = 5.0
"""Values further out than so many times the span of the middle 96 % are cut off, and told."""

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # braille dots by row and column of a cell


@dataclass(frozen=True, slots=True)
class Trace:
    """One curve: its name, and its values at steps, NaN where unknown. `flat` draws a limit: dashes, no letter."""

    label: str
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    flat: bool = False


def plot(
    traces: Sequence[Trace],
    *,
    width: int = 80,
    height: int = 12,
    ascii: bool = False,
    colour: bool = True,
    held: Sequence[tuple[int, int]] = (),
    last_step: int | None = None,
) -> list[Text]:
    """The curves over steps as lines of text, with an axis to the left and one below.

    Args:
        traces: what to draw; of several, each has a letter at its end.
        width, height: of the drawing in cells; axes come on top of the height.
        ascii: draw with ASCII characters alone.
        colour: whether the terminal shows colours.
        held: first and last steps of stretches to underline, drawn as a bar below the axis.
        last_step: where the axis ends; default the last step of the curves.
    """
    usable = [trace for trace in traces if len(trace.steps) and np.isfinite(trace.values).any()]
    if not usable:
        return [Text("nothing to draw: no finite value")]
    everything = np.concatenate([trace.values[np.isfinite(trace.values)] for trace in usable])
    inner = _inner(everything)
    log = bool(inner.min() > 0 and inner.max() / inner.min() > LOG_FROM)
    low, high = _range(inner, log)
    cut = [value for value in (float(everything.min()), float(everything.max())) if not low <= value <= high]
    first = min(int(trace.steps[0]) for trace in usable)
    last = max(last_step or 0, *(int(trace.steps[-1]) for trace in usable))
    labels = dict(_axis(low, high, log, height))
    margin = max(len(text) for text in labels.values())
    columns = max(10, width - margin - 3)
    letters = ascii or (len([t for t in usable if not t.flat]) > 1 and not colour)
    canvas = _Canvas(columns, height, letters)
    for index, trace in enumerate(usable):
        x = (trace.steps - first) / max(1, last - first)
        y = _scaled(trace.values, low, high, log)
        canvas.draw(x, y, index, trace.flat)
    if len(usable) > 1:
        for index, trace in enumerate(usable):
            canvas.sign(trace, index, (int(trace.steps[-1]) - first) / max(1, last - first), low, high, log)
    edge, corner, rule = ("|", "+", "-") if ascii else ("│", "└", "─")
    lines = [Text(f"{labels.get(row, ''):>{margin}} {edge}").append_text(canvas.row(row, colour)) for row in range(height)]
    lines.append(Text(f"{'':>{margin}} {corner}{rule * columns}"))
    if held:
        lines.append(Text(f"{'':>{margin}}  ").append_text(Text(_bar(held, first, last, columns, "#" if ascii else "█"), style="red" if colour else "")))
    lines.append(Text(f"{'':>{margin}}  {_feet(first, last, columns)}"))
    if cut:
        lines.append(Text(f"{'':>{margin}}  cut off: values {' and '.join(('down to ' if v < low else 'up to ') + number(v).replace(chr(0x202F), ' ') for v in cut)}"))
    return lines


def legend(traces: Sequence[Trace], colour: bool = True) -> list[Text]:
    """Which letter is which curve, and how it ended."""
    lines = []
    for index, trace in enumerate(traces):
        finite = trace.values[np.isfinite(trace.values)]
        ended = f", {number(float(finite[0]))} to {number(float(finite[-1]))}" if finite.size else ", no finite value"
        lines.append(Text(f"{LETTERS[index % len(LETTERS)]} {trace.label}{ended}", style=COLOURS[index % len(COLOURS)] if colour else ""))
    return lines


class _Canvas:
    """Cells of dots (or of letters), each with the curve that was drawn in it last."""

    def __init__(self, columns: int, rows: int, letters: bool) -> None:
        self.columns, self.rows, self.letters = columns, rows, letters
        self.across, self.down = (columns, rows) if letters else (2 * columns, 4 * rows)
        self.bits = np.zeros((rows, columns), np.int64)
        self.owner = np.full((rows, columns), -1, np.int64)
        self.signs: dict[tuple[int, int], tuple[str, int]] = {}

    def draw(self, x: NDArray[np.float64], y: NDArray[np.float64], owner: int, dashed: bool) -> None:
        """`x` and `y` from 0 to 1, y upwards; neighbours are joined, a NaN is a gap."""
        keep = np.isfinite(y)
        px = np.round(x * (self.across - 1)).astype(np.int64)
        py = np.zeros(len(y), np.int64)
        py[keep] = np.round((1 - y[keep]) * (self.down - 1)).astype(np.int64)
        before: tuple[int, int] | None = None
        for column, row, known in zip(px.tolist(), py.tolist(), keep.tolist(), strict=True):
            if known:
                self._join(before or (column, row), (column, row), owner, dashed)
            before = (column, row) if known else None

    def _join(self, start: tuple[int, int], end: tuple[int, int], owner: int, dashed: bool) -> None:
        longest = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
        for part in range(longest + 1):
            column = start[0] + round((end[0] - start[0]) * part / longest)
            if dashed and (column // 2) % 3 == 2:
                continue
            self._dot(column, start[1] + round((end[1] - start[1]) * part / longest), owner)

    def _dot(self, column: int, row: int, owner: int) -> None:
        if self.letters:
            self.owner[row, column] = owner
            return
        self.bits[row // 4, column // 2] |= _DOTS[row % 4][column % 2]
        self.owner[row // 4, column // 2] = owner

    def sign(self, trace: Trace, owner: int, x: float, low: float, high: float, log: bool) -> None:
        """The letter of a curve at its end."""
        finite = np.flatnonzero(np.isfinite(trace.values))
        if trace.flat or not finite.size:
            return
        height = float(_scaled(trace.values[finite[-1:]], low, high, log)[0])
        row, column = round((1 - height) * (self.rows - 1)), min(self.columns - 1, round(x * (self.columns - 1)))
        while (row, column) in self.signs and column > 0:
            column -= 1
        self.signs[row, column] = (LETTERS[owner % len(LETTERS)], owner)

    def row(self, row: int, colour: bool) -> Text:
        line = Text()
        for column in range(self.columns):
            owner = int(self.owner[row, column])
            shown, owner = self.signs.get((row, column), (self._glyph(row, column, owner), owner))
            line.append(shown, style=COLOURS[owner % len(COLOURS)] if colour and owner >= 0 else "")
        line.rstrip()
        return line

    def _glyph(self, row: int, column: int, owner: int) -> str:
        if self.letters:
            return " " if owner < 0 else "*+x#"[owner % 4]
        bits = int(self.bits[row, column])
        return chr(0x2800 + bits) if bits else " "


def _inner(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values without the few that lie so far out that nothing else would be seen beside them."""
    low, high = np.quantile(values, (0.02, 0.98))
    room = max(FAR_OUT * (high - low), 1e-12 * abs(high))
    kept: NDArray[np.float64] = values[(values >= low - room) & (values <= high + room)]
    return kept


def _range(values: NDArray[np.float64], log: bool) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = (low / 2, high * 2) if log or low > 0 else (low - 1.0, high + 1.0)
    return low, high


def _scaled(values: NDArray[np.float64], low: float, high: float, log: bool) -> NDArray[np.float64]:
    """From [low, high] to [0, 1]; what is not finite is NaN."""
    with np.errstate(all="ignore"):
        usable = np.where(np.isfinite(values), values, np.nan)
        if log:
            usable, low, high = np.log10(usable), math.log10(low), math.log10(high)
        result: NDArray[np.float64] = np.clip((usable - low) / (high - low), 0.0, 1.0)
    return result


def _axis(low: float, high: float, log: bool, height: int) -> list[tuple[int, str]]:
    """Rows and what stands beside them: the extremes and round values between."""
    found = {height - 1: number(low), 0: number(high)}
    for value in ticks(low, high, log, wanted=max(2, height // 4)):
        row = round((1 - float(_scaled(np.array([value]), low, high, log)[0])) * (height - 1))
        if 0 < row < height - 1:
            found[row] = number(value)
    return sorted((row, text.replace("\u202f", " ")) for row, text in found.items())


def _bar(held: Sequence[tuple[int, int]], first: int, last: int, columns: int, mark: str) -> str:
    cells = [" "] * columns
    for begin, end in held:
        left, right = (round((step - first) / max(1, last - first) * (columns - 1)) for step in (begin, end))
        for column in range(max(0, left), min(columns - 1, right) + 1):
            cells[column] = mark
    return "".join(cells).rstrip()


def _feet(first: int, last: int, columns: int) -> str:
    left, right = f"step {first}", str(last)
    return left + right.rjust(columns - len(left))
