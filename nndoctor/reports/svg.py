"""Charts as SVG and PNG text, drawn here and not in the browser: they need no script, scale and print.

Colours come from classes, so that they follow the page's theme; every text is escaped. Plots are stretched to
their box (``preserveAspectRatio="none"``), hence axis labels are drawn in boxes of their own, which are not.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from nndoctor.history import History
from nndoctor.reports.charts import LOG_SPAN, Chart, Floats, quantity, ticks, whole_number
from nndoctor.reports.text_safety import clean

POINTS = 240
"""Points per curve in a static chart; the page is at most a few hundred CSS pixels wide there."""


def _thin(xs: Floats, ys: Floats, points: int) -> tuple[Floats, Floats]:
    """At most `points` of the curve, keeping the lowest and the highest of every stretch that is merged."""
    if len(xs) <= points:
        return xs, ys
    keep: list[int] = []
    for part in np.array_split(np.arange(len(xs)), max(points // 2, 1)):
        values = ys[part]
        if np.isfinite(values).any():
            keep.extend(sorted({int(part[np.nanargmin(values)]), int(part[np.nanargmax(values)])}))
        else:
            keep.append(int(part[0]))
    return xs[keep], ys[keep]


def path(xs: Floats, ys: Floats) -> str:
    """An SVG path through the points, broken where y is not finite; a lone point becomes a dot."""
    parts: list[str] = []
    pen_down = False
    for index, (x, y) in enumerate(zip(xs.tolist(), ys.tolist(), strict=True)):
        if not math.isfinite(y):
            pen_down = False
            continue
        lone = not pen_down and (index + 1 == len(xs) or not math.isfinite(ys[index + 1]))
        parts.append(f"{'L' if pen_down else 'M'}{x:.5g} {y:.4g}" + ("h0" if lone else ""))
        pen_down = True
    return "".join(parts)


def _scaled(values: Floats, low: float, high: float, size: float, log: bool = False) -> Floats:
    """`values` as coordinates from 0 (low) to `size` (high); not drawable ones become NaN."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if log:
            values, low, high = np.log10(np.where(values > 0, values, np.nan)), math.log10(low), math.log10(high)
        scaled: Floats = (values - low) / (high - low) * size
    return np.where(np.isfinite(scaled), scaled, np.nan)


def sparkline(
    values: Sequence[float],
    steps: Sequence[int] | None = None,
    *,
    span: tuple[int, int] | None = None,
    threshold: float | None = None,
    mark: int | None = None,
    label: str = "",
) -> Markup:
    """A small curve.

    Args:
        values: what to draw, oldest first; NaN breaks the line.
        steps: where each value lies; evenly spread without.
        span: first and last step of the picture; those of `steps` by default.
        threshold: a dashed horizontal line.
        mark: step of a vertical line.
        label: what a screen reader says.
    """
    ys = np.asarray(values, float)
    finite = ys[np.isfinite(ys)]
    name = escape(clean(label or "no values"))
    if not finite.size:
        return Markup('<svg class="spark" viewBox="0 0 120 30" role="img" aria-label="{}"></svg>').format(name)
    limits = [threshold] if threshold is not None and math.isfinite(threshold) else []
    low, high = min([*limits, float(finite.min())]), max([*limits, float(finite.max())])
    log = low > 0 and high > LOG_SPAN * low
    if high == low:
        low, high = low - 1, high + 1
    places = np.arange(len(ys)) if steps is None else np.asarray(steps)
    first, last = span if span is not None else (int(places[0]), int(places[-1]))
    first, last = (first - 1, last + 1) if first >= last else (first, last)
    xs, ys = _thin(2 + _scaled(places.astype(float), first, last, 116), np.where(np.isfinite(ys), ys, np.nan), 90)
    out = [f'<svg class="spark" viewBox="0 0 120 30" preserveAspectRatio="none" role="img" aria-label="{name}">']
    if mark is not None and first <= mark <= last:
        out.append(f'<path class="mark" d="M{2 + 116 * (mark - first) / (last - first):.4g} 0v30"/>')
    for limit in limits:
        out.append(f'<path class="limit" d="M0 {27 - _scaled(np.array([limit]), low, high, 24, log)[0]:.4g}h120"/>')
    kind = "curve lone" if finite.size == 1 else "curve"
    out.append(f'<path class="{kind}" d="{path(xs, 27 - _scaled(ys, low, high, 24, log))}"/></svg>')
    return Markup("".join(out))


WIDTH, HEIGHT = 1000.0, 100.0


def plot(chart: Chart) -> Markup:
    """The chart's drawing area: bands, grid, range of every line, lines; 1000 x 100 units, stretched by the page."""
    x_low, x_high = chart.x_range
    y_low, y_high = chart.y_range
    log = chart.log

    def y_at(values: Any) -> Floats:
        values = np.asarray(values, float)
        if log and chart.zeros:
            values = np.where(values == 0, y_low, values)
        return HEIGHT - _scaled(values, y_low, y_high, HEIGHT, log)

    out = [f'<svg class="plot" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" preserveAspectRatio="none" aria-hidden="true">']
    for band in chart.bands:
        left, right = _scaled(np.array([band.first, band.last], float), x_low, x_high, WIDTH)
        left, right = max(float(left), 0.0), min(max(float(right), float(left) + 2), WIDTH)
        tone = escape(band.tone)
        out.append(f'<rect class="band {tone}" x="{left:.5g}" y="0" width="{max(right - left, 0):.5g}" height="100"/>')
        out.append(f'<path class="onset {tone}" d="M{left:.5g} 0v100"/>')
    for tick in ticks(y_low, y_high, log):
        out.append(f'<path class="grid" d="M0 {y_at([tick])[0]:.4g}h1000"/>')
    if chart.reference is not None:
        out.append(f'<path class="limit" d="M0 {y_at([chart.reference[1]])[0]:.4g}h1000"/>')
    for position, line in enumerate(chart.lines):
        xs = _scaled(line.steps.astype(float), x_low, x_high, WIDTH)
        out.append(_area(xs, y_at(line.low), y_at(line.high), position))
        thin_x, thin_y = _thin(xs, y_at(line.mean), POINTS)
        lone = " lone" if line.finite.size == 1 else ""
        out.append(f'<path class="curve s{position % 6}{lone}" d="{path(thin_x, thin_y)}"/>')
    return Markup("".join([*out, "</svg>"]))


def _area(xs: Floats, low: Floats, high: Floats, position: int) -> str:
    usable = np.isfinite(low) & np.isfinite(high)
    if usable.sum() < 2 or np.allclose(low[usable], high[usable], atol=0.3):
        return ""
    xs, low, high = xs[usable], low[usable], high[usable]
    if len(xs) > POINTS // 2:
        chosen = np.unique(np.linspace(0, len(xs) - 1, POINTS // 2).round().astype(int))
        xs, low, high = xs[chosen], low[chosen], high[chosen]
    outline = path(np.concatenate([xs, xs[::-1]]), np.concatenate([high, low[::-1]]))
    return f'<path class="area s{position % 6}" d="{outline}Z"/>'


def y_axis(chart: Chart) -> Markup:
    """The labels beside the plot; a box of its own so that stretching the plot does not distort the text."""
    low, high = chart.y_range
    out = ['<svg class="yaxis" aria-hidden="true">']
    for tick in ticks(low, high, chart.log):
        percent = 100 - float(_scaled(np.array([tick]), low, high, 100, chart.log)[0])
        if 3 <= percent <= 97:
            out.append(f'<text x="100%" y="{percent:.4g}%" dy="0.32em" text-anchor="end">{escape(quantity(tick, chart.unit))}</text>')
    return Markup("".join([*out, "</svg>"]))


def x_axis(low: float, high: float) -> Markup:
    """The step labels below a plot over steps `low` to `high`."""
    out = ['<svg class="xaxis" aria-hidden="true">']
    for tick in ticks(low, high, False, 5):
        if tick != round(tick):
            continue
        percent = 100 * (tick - low) / (high - low)
        anchor = "start" if percent < 3 else "end" if percent > 96 else "middle"
        out.append(f'<text x="{percent:.4g}%" y="12" text-anchor="{anchor}">{whole_number(tick)}</text>')
    return Markup("".join([*out, "</svg>"]))


def flags(chart: Chart) -> Markup:
    """The numbers of root causes above a plot, each where its band begins."""
    low, high = chart.x_range
    out = ['<svg class="flags" aria-hidden="true">']
    for band in chart.bands:
        if band.flag:
            percent = 100 * min(max((band.first - low) / (high - low), 0.0), 1.0)
            tone, flag = escape(band.tone), escape(band.flag)
            out.append(f'<svg class="{tone}" x="{percent:.4g}%" overflow="visible"><rect x="-7" y="0" width="14" height="14" rx="4"/><text y="11" text-anchor="middle">{flag}</text></svg>')
    return Markup("".join([*out, "</svg>"]))


def row_axis(names: Sequence[str], height: int, most: int = 40, width: int = 26) -> Markup:
    """The names of a heat map's rows, at most `most` of them; a long one keeps its end, which tells most."""
    out = [f'<svg class="rowaxis" height="{height}" aria-hidden="true">']
    for index in range(0, len(names), max(1, -(-len(names) // most))):
        name = clean(names[index])
        name = name if len(name) <= width else "…" + name[1 - width :]
        percent = 100 * (index + 0.5) / len(names)
        out.append(f'<text x="100%" y="{percent:.4g}%" dy="0.35em" text-anchor="end">{escape(name)}</text>')
    return Markup("".join([*out, "</svg>"]))


def share_bar(shares: Sequence[tuple[str, float]], label: str) -> Markup:
    """One horizontal bar divided into (class name, share of 1) parts."""
    out = [f'<svg class="sharebar" viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" aria-label="{escape(clean(label))}">']
    left = 0.0
    for name, share in shares:
        width = max(share, 0.0) * 1000
        out.append(f'<rect class="{escape(name)}" x="{left:.5g}" y="0" width="{width:.5g}" height="10"/>')
        left += width
    return Markup("".join([*out, "</svg>"]))


def bar(share: float, second: float = 0.0) -> Markup:
    """A small horizontal bar for a table cell: `share` of 1 in one colour, then `second` in another."""
    first_width = 100 * min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
    second_width = 100 * min(max(second, 0.0), 1.0) if math.isfinite(second) else 0.0
    return Markup(
        '<svg class="minibar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="t-forward" x="0" y="0" width="{first_width:.4g}" height="8"/>'
        f'<rect class="t-backward" x="{first_width:.4g}" y="0" width="{second_width:.4g}" height="8"/></svg>'
    )


# -- heat map: layers by steps -----------------------------------------------------------------------------------

MISSING = 255
LEVELS = 254
"""Levels 0 to 253 are shades from low to high; 255 is not measured."""


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A signal over layers (rows, in the order of `rows`) and steps (columns), as levels of one byte."""

    signal: str
    help: str
    unit: str
    rows: tuple[int, ...]
    edges: tuple[int, ...]
    levels: NDArray[np.uint8]
    low: float
    high: float
    log: bool

    def data(self) -> dict[str, Any]:
        return {
            "signal": self.signal,
            "unit": self.unit,
            "rows": list(self.rows),
            "edges": list(self.edges),
            "low": self.low,
            "high": self.high,
            "log": self.log,
            "levels": base64.b64encode(self.levels.tobytes()).decode(),
        }


CELLS = 72_000
"""Cells of one heat map in the page: 60 layers over 600 steps get one each, more layers get fewer columns."""


def heat_map(
    history: History, signal: str, order: Sequence[int], columns: int = 600, cells: int = CELLS
) -> HeatMap | None:
    """The heat map of a per-layer signal, None where it was never measured.

    Args:
        order: indices of the layers, top row first; layers that were never measured are left out.
        columns: at most so many columns; each holds the mean of the steps it covers.
        cells: at most so many cells altogether.
    """
    if signal not in history.measured():
        return None
    whole = history.whole(signal)
    values = np.where(np.isfinite(whole.mean), whole.mean, np.nan).astype(float)  # (k, layers)
    if not np.isfinite(values).any():
        return None
    rows = tuple(index for index in order if index < values.shape[1] and np.isfinite(values[:, index]).any())
    edges, grid = _columns(whole.steps, values[:, rows], history.step, max(1, min(columns, cells // max(len(rows), 1))))
    known = history.catalogue[signal]
    linear = known.unit == "fraction"
    low, high = (0.0, 1.0) if linear else _log_range(grid)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = grid if linear else (np.log10(np.maximum(grid, low)) - math.log10(low)) / math.log10(high / low)
        levels = np.clip(np.nan_to_num(share) * (LEVELS - 1), 0, LEVELS - 1).round().astype(np.uint8)
    levels[np.isnan(grid)] = MISSING
    return HeatMap(signal, known.help, known.unit, rows, edges, levels, low, high, not linear)


def _columns(steps: Any, values: Floats, end: int, columns: int) -> tuple[tuple[int, ...], Floats]:
    """Means over equal stretches of steps, (rows, columns).

    A stretch between two samples repeats the one before it; after the last sample, for as long as samples lay apart.
    """
    first, last = int(steps[0]), max(end, int(steps[-1]))
    columns = max(1, min(columns, len(steps), last - first + 1))
    edges = np.unique(np.linspace(first, last + 1, columns + 1).round().astype(int))
    where = np.clip(np.searchsorted(edges, steps, side="right") - 1, 0, len(edges) - 2)
    known = np.isfinite(values)
    total, count = np.zeros((len(edges) - 1, values.shape[1])), np.zeros((len(edges) - 1, values.shape[1]))
    np.add.at(total, where, np.where(known, values, 0.0))
    np.add.at(count, where, known)
    with np.errstate(invalid="ignore", divide="ignore"):
        grid = np.where(count > 0, total / count, np.nan)
    sampled = np.zeros(len(edges) - 1, bool)
    sampled[where] = True
    held = last if len(steps) < 2 else int(steps[-1]) + 2 * int(steps[-1] - steps[-2])
    for column in range(1, len(grid)):
        if not sampled[column] and edges[column] < held:
            grid[column] = grid[column - 1]
    return tuple(int(edge) for edge in edges), grid.T


def _log_range(grid: Floats) -> tuple[float, float]:
    """Powers of ten around nearly all positive values, at most ten decades."""
    positive = grid[np.isfinite(grid) & (grid > 0)]
    if not positive.size:
        return 1e-1, 1.0
    low, high = np.quantile(positive, (0.005, 0.995))
    low, high = max(float(low), float(high) * 1e-10, 1e-36), float(high)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return 10.0**first, 10.0 ** max(last, first + 1)


CIVIDIS = (
    (0, 32, 76), (0, 42, 102), (0, 52, 110), (39, 63, 108), (60, 74, 107), (76, 85, 107), (91, 95, 109), (104, 106, 112),
    (117, 117, 117), (131, 129, 120), (146, 140, 120), (161, 152, 118), (176, 165, 114), (192, 177, 109), (209, 191, 102),
    (225, 204, 92), (243, 219, 79), (255, 233, 69),
)  # fmt: skip
"""Cividis (Nunez, Anderton & Renslow 2018), readable with every kind of colour vision and in grey."""


def palette() -> NDArray[np.uint8]:
    """256 colours, (256, 3): cividis for the levels, mid grey for what was not measured."""
    anchors = np.asarray(CIVIDIS, float)
    places = np.linspace(0, len(anchors) - 1, LEVELS)
    colours = np.stack([np.interp(places, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)], axis=1)
    full = np.full((256, 3), 128, np.uint8)
    full[:LEVELS] = colours.round().astype(np.uint8)
    return full


def png(levels: NDArray[np.uint8]) -> str:
    """The levels as a data address of a palette PNG, one pixel each."""
    height, width = levels.shape

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    rows = np.concatenate([np.zeros((height, 1), np.uint8), levels], axis=1).tobytes()
    transparent = bytes([255] * 255 + [0])
    body = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"PLTE", palette().tobytes()) + chunk(b"tRNS", transparent)
    body += chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(body).decode()


def thinned(levels: NDArray[np.uint8], columns: int, rows: int = 400) -> NDArray[np.uint8]:
    """At most `rows` x `columns` of the cells, evenly picked: the picture that is shown without a script."""
    pick_rows = np.unique(np.linspace(0, levels.shape[0] - 1, min(rows, levels.shape[0])).round().astype(int))
    pick = np.unique(np.linspace(0, levels.shape[1] - 1, min(columns, levels.shape[1])).round().astype(int))
    small: NDArray[np.uint8] = levels[np.ix_(pick_rows, pick)]
    return small
