"""What a chart shows, as plain data: lines over steps, bands of findings, a summary in words and a table."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nndoctor.history import History
from nndoctor.signals import OBSERVED_PREFIX

Steps: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

LOG_SPAN = 50.0
"""Positive values that span more than this factor are drawn on a log scale."""


class Band(NamedTuple):
    """A stretch of steps at which a finding held; `flag` is the number of the root cause that stands at its start."""

    label: str
    first: int
    last: int
    tone: str
    flag: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: `steps`, `mean`, `low` and `high` all of shape (k,); NaN where nothing was measured."""

    label: str
    steps: Steps
    mean: Floats
    low: Floats
    high: Floats

    @property
    def finite(self) -> Floats:
        return self.mean[np.isfinite(self.mean)]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines that share one axis, with everything a renderer needs."""

    id: str
    title: str
    lines: tuple[Line, ...]
    unit: str = ""
    note: str = ""
    bands: tuple[Band, ...] = ()
    reference: tuple[str, float] | None = None
    span: tuple[int, int] | None = None
    detail: tuple[Line, ...] = ()
    """The same lines with every sample around findings, for the script in the page; empty: `lines` hold all there is."""
    zeros: bool = False
    """Whether zeros may lie on the bottom of a logarithmic axis: for norms, which are zero where nothing moves."""

    @property
    def x_range(self) -> tuple[float, float]:
        """`span`, or first and last step over all lines; widened where they are the same."""
        firsts = [int(line.steps[0]) for line in self.lines if len(line.steps)]
        lasts = [int(line.steps[-1]) for line in self.lines if len(line.steps)]
        first, last = (min(firsts), max(lasts)) if firsts else (0, 1)
        if self.span is not None:
            first, last = self.span
        return (first - 0.5, last + 0.5) if first == last else (float(first), float(last))

    @property
    def y_values(self) -> Floats:
        parts = [part[np.isfinite(part)] for line in self.lines for part in (line.mean, line.low, line.high)]
        if self.reference is not None:
            parts.append(np.array([self.reference[1]], float))
        return np.concatenate(parts) if parts else np.empty(0)

    @property
    def log(self) -> bool:
        """True where a linear axis would flatten most of the curve."""
        values = self.y_values
        if self.zeros and values.size and values.min() >= 0:
            values = values[values > 0]
        return bool(values.size and values.min() > 0 and values.max() > LOG_SPAN * values.min())

    @property
    def has_zeros(self) -> bool:
        """Whether there are zeros, drawn at the bottom of the logarithmic axis."""
        return self.log and bool((self.y_values == 0).any())

    @property
    def y_range(self) -> tuple[float, float]:
        """Range of the axis: the values with a little air; never empty."""
        values = self.y_values
        if not values.size:
            return 0.0, 1.0
        if self.log:
            low, high = float(values[values > 0].min()), float(values.max())
            air = (high / low) ** 0.04
            return low / air, high * air
        low, high = float(values.min()), float(values.max())
        air = (high - low) * 0.06 or abs(high) * 0.5 or 1.0
        return low - air, high + air

    def summary(self) -> str:
        """The chart in one or two sentences, for those who cannot see it."""
        said = [_describe_line(line, self.unit) for line in self.lines]
        if self.bands:
            said.append("Marked: " + "; ".join(f"{b.label}, steps {b.first} to {b.last}" for b in self.bands) + ".")
        return " ".join(said)

    def table(self, rows: int = 12) -> list[tuple[int, list[tuple[float, float, float] | None]]]:
        """About `rows` evenly spread steps with (mean, low, high) of every line, None where a line has none."""
        if not self.lines:
            return []
        steps = np.unique(np.concatenate([line.steps for line in self.lines]))
        if len(steps) > rows:
            steps = steps[np.unique(np.linspace(0, len(steps) - 1, rows).round().astype(int))]
        return [(int(step), [_at(line, int(step)) for line in self.lines]) for step in steps]

    def data(self) -> dict[str, Any]:
        """The same chart for the script in the page: one x axis, every line aligned to it."""
        lines = self.detail or self.lines
        steps = np.unique(np.concatenate([line.steps for line in lines])) if lines else np.empty(0, np.int64)
        log = self.log
        return {
            "id": self.id,
            "unit": self.unit,
            "range": list(self.x_range),
            "log": log,
            "floor": float(f"{self.y_range[0]:.5g}") if log and self.zeros else None,
            "steps": steps.tolist(),
            "lines": [_line_data(line, steps, log and not self.zeros) for line in lines],
            "bands": [list(band) for band in self.bands],
            "reference": None if self.reference is None else list(self.reference),
        }


def _line_data(line: Line, steps: Steps, positive: bool) -> dict[str, Any]:
    """A line aligned to `steps`; without low and high where no place holds more than one value."""
    data: dict[str, Any] = {"label": line.label, "mean": aligned(line.steps, line.mean, steps, positive)}
    if not (np.array_equal(line.low, line.mean, equal_nan=True) and np.array_equal(line.high, line.mean, equal_nan=True)):
        data["low"] = aligned(line.steps, line.low, steps, positive)
        data["high"] = aligned(line.steps, line.high, steps, positive)
    return data


def aligned(own: Steps, values: Floats, steps: Steps, positive: bool = False) -> list[float | None]:
    """`values` at `steps`, to five digits; None where the line has no (finite, drawable) value."""
    full = np.full(len(steps), np.nan)
    full[np.searchsorted(steps, own)] = values
    return [float(f"{v:.5g}") if math.isfinite(v) and (v > 0 or not positive) else None for v in full.tolist()]


def _at(line: Line, step: int) -> tuple[float, float, float] | None:
    index = int(np.searchsorted(line.steps, step))
    if index >= len(line.steps) or line.steps[index] != step:
        return None
    return float(line.mean[index]), float(line.low[index]), float(line.high[index])


def _describe_line(line: Line, unit: str) -> str:
    usable = np.isfinite(line.mean)
    if not usable.any():
        return f"{line.label}: no finite value."
    steps, mean = line.steps[usable], line.mean[usable]
    broken = int((~usable).sum())
    text = f"{line.label}: {quantity(mean[0], unit)} at step {whole_number(steps[0])}"
    if len(mean) > 1:
        low, high = int(mean.argmin()), int(mean.argmax())
        text += (
            f", {quantity(mean[-1], unit)} at step {whole_number(steps[-1])}; lowest {quantity(mean[low], unit)} at step {whole_number(steps[low])},"
            f" highest {quantity(mean[high], unit)} at step {whole_number(steps[high])}"
        )
    return text + (f"; not finite in {broken} of {len(usable)} places." if broken else ".")


# -- from a history to lines -------------------------------------------------------------------------------------


def run_line(history: History, name: str, label: str | None = None, column: int = 0) -> Line | None:
    """The whole run of one target of a signal; None where it was never measured."""
    if name not in history.measured():
        return None
    whole = history.whole(name)
    if not len(whole.steps) or column >= whole.mean.shape[1]:
        return None
    mean = whole.mean[:, column].astype(float)
    keep = ~np.isnan(mean)
    if not keep.any():
        return None
    low, high = whole.low[keep, column].astype(float), whole.high[keep, column].astype(float)
    return Line(label or plain_name(name), whole.steps[keep].astype(np.int64), mean[keep], low, high)


def spread_line(history: History, name: str, label: str) -> Line | None:
    """The median over all targets of a signal, between its 10th and 90th percentile; None where never measured."""
    if name not in history.measured():
        return None
    whole = history.whole(name)
    values = np.where(np.isfinite(whole.mean), whole.mean, np.nan).astype(float)  # (k, size)
    keep = ~np.isnan(values).all(axis=1) if values.size else np.zeros(0, bool)
    if not keep.any():
        return None
    low, middle, high = quantiles(values[keep], (0.1, 0.5, 0.9))
    return Line(label, whole.steps[keep].astype(np.int64), middle, low, high)


def quantiles(values: Floats, levels: Sequence[float]) -> Floats:
    """Quantiles over the last axis, ignoring NaN, without warnings; shape (levels, rows)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        result: Floats = np.nanquantile(values, levels, axis=-1)
    return result


def median(values: Any) -> float:
    """Median of the finite values, NaN where there is none."""
    array = np.asarray(values, float)
    array = array[np.isfinite(array)]
    return float(np.median(array)) if array.size else math.nan


def plain_name(signal: str) -> str:
    return signal[len(OBSERVED_PREFIX) :] if signal.startswith(OBSERVED_PREFIX) else signal


# -- numbers in words --------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """A measured number for reading: three or four digits, ``3.1e-4`` outside of 0.001 to 100 000."""
    if value != value:
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e5 or size < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    if size >= 1000 or float(value).is_integer():
        return whole_number(round(value))
    return f"{value:.3g}" if size >= 1 else f"{value:.3f}".rstrip("0").rstrip(".") if size >= 0.1 else f"{value:.2g}"


def whole_number(value: float) -> str:
    """``12 345`` with a narrow no-break space."""
    return f"{int(value):,}".replace(",", "\u202f")


def quantity(value: float, unit: str) -> str:
    """`value` with its unit in the size people use: ``12 ms``, ``340 MiB``, ``41 %``."""
    if not math.isfinite(value):
        return number(value)
    if unit == "s":
        return duration(value)
    if unit == "bytes":
        for name, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
            if abs(value) >= size:
                return f"{value / size:.3g}\u202f{name}"
        return f"{value:.0f}\u202fB"
    if unit == "fraction":
        return f"{100 * value:.3g}\u202f%"
    if unit in ("count", "samples", "steps"):
        return f"{number(value)}"
    return number(value)


def duration(seconds: float) -> str:
    """``430 µs``, ``12.1 ms``, ``3.2 s``, ``4 min 10 s``, ``2 h 5 min``."""
    if not math.isfinite(seconds):
        return "–"
    if abs(seconds) < 60:
        for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
            if abs(seconds) >= size:
                return f"{seconds / size:.3g}\u202f{unit}"
        return "0\u202fs" if seconds == 0 else f"{seconds * 1e9:.3g}\u202fns"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}\u202fmin {rest}\u202fs"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}\u202fh {minutes}\u202fmin"


def ticks(low: float, high: float, log: bool, wanted: int = 4) -> list[float]:
    """Round values inside [low, high] to write beside an axis; at least one."""
    if log:
        span = math.log10(high / low)
        within = (1,) if span > 2 else (1, 3) if span > 1 else (1, 2, 3, 5, 7)
        stride = max(1, math.ceil(span / wanted))
        powers = (power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) if power % stride == 0)
        found = [value for power in powers for factor in within if low <= (value := float(f"{factor}e{power}")) <= high]
        return found or [low]
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    raw = span / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first_multiple, last_multiple = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [0.0 if multiple == 0 else multiple * step for multiple in range(first_multiple, last_multiple + 1)] or [low]
