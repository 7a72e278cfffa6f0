"""The numeric vocabulary of rule expressions: what each function computes, on floats and on arrays.

Unknown is NaN, everywhere. A condition is 1.0 (true), 0.0 (false) or NaN (unknown), so that one
array type carries numbers and three-valued logic. A number that mathematics does not define (a
division by zero, the logarithm of zero) is unknown as well: it cannot make a rule fire.

A value of the run is a Python float, a value per target an array of float64: plain floats make the
many rules that judge the run as a whole about ten times cheaper than one-element arrays.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nndoctor.history import Series, Window

Array: TypeAlias = NDArray[np.float64]
Value: TypeAlias = "float | Array"
Mask: TypeAlias = NDArray[np.bool_]

UNKNOWN = float("nan")
LEAST_SAMPLES = 3  # a windowed value rests on at least so many samples (fewer only in shorter windows)
WIDEST = 8  # a target that is measured less often than the others is looked for this many windows back
_STEEPEST = 1e6  # slope_t of a series without any noise


# --- arithmetic and logic -------------------------------------------------------------------------


def add(a: Any, b: Any) -> Any:
    return a + b


def subtract(a: Any, b: Any) -> Any:
    return a - b


def multiply(a: Any, b: Any) -> Any:
    return a * b


def divide(a: Any, b: Any) -> Any:
    if isinstance(a, float) and isinstance(b, float):
        return a / b if b != 0.0 else UNKNOWN
    return np.where(np.equal(b, 0.0), UNKNOWN, np.divide(a, b))


def power(a: Any, b: Any) -> Any:
    if isinstance(a, float) and isinstance(b, float):
        try:
            result = a**b
        except OverflowError:
            return math.inf
        except ZeroDivisionError:
            return UNKNOWN
        return result if isinstance(result, float) else UNKNOWN
    with np.errstate(all="ignore"):
        return np.where(np.equal(a, 0.0) & np.less(b, 0.0), UNKNOWN, np.power(a, b))


def negate(a: Any) -> Any:
    return -a


def not_(a: Any) -> Any:
    return 1.0 - a


def and_(*values: Any) -> Any:
    """Three-valued and: false if any is false, else unknown if any is unknown."""
    if all(isinstance(v, float) for v in values):
        return 0.0 if 0.0 in values else math.prod(values)
    product = values[0]
    for value in values[1:]:
        product = product * value
    if not np.isnan(product).any():
        return product
    false = np.equal(values[0], 0.0)
    for value in values[1:]:
        false = false | np.equal(value, 0.0)
    return np.where(false, 0.0, product)


def or_(*values: Any) -> Any:
    """Three-valued or: true if any is true, else unknown if any is unknown."""
    return 1.0 - and_(*(1.0 - value for value in values))


def _comparison(test: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def compare(a: Any, b: Any) -> Any:
        if isinstance(a, float):
            if a != a:
                return a if isinstance(b, float) else np.full(len(b), UNKNOWN)
            if isinstance(b, float):
                return b if b != b else float(test(a, b))
            unknown = np.isnan(b)
        elif isinstance(b, float):
            unknown = np.isnan(a) if b == b else np.ones(len(a), bool)
        else:
            unknown = np.isnan(a) | np.isnan(b)
        result = test(a, b).astype(np.float64)
        if unknown.any():
            result[unknown] = UNKNOWN
        return result

    return compare


COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    ">": _comparison(operator.gt),
    ">=": _comparison(operator.ge),
    "<": _comparison(operator.lt),
    "<=": _comparison(operator.le),
    "==": _comparison(operator.eq),
    "!=": _comparison(operator.ne),
}
ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": add,
    "-": subtract,
    "*": multiply,
    "/": divide,
    "**": power,
}


# --- scalar functions -----------------------------------------------------------------------------


def absolute(a: Any) -> Any:
    return abs(a)


def log10(a: Any) -> Any:
    if isinstance(a, float):
        return math.log10(a) if a > 0.0 else UNKNOWN
    return np.log10(np.where(a > 0.0, a, UNKNOWN))


def sqrt(a: Any) -> Any:
    if isinstance(a, float):
        return math.sqrt(a) if a >= 0.0 else UNKNOWN
    return np.sqrt(np.where(a >= 0.0, a, UNKNOWN))


def min2(a: Any, b: Any) -> Any:
    if isinstance(a, float) and isinstance(b, float):
        return UNKNOWN if a != a or b != b else min(a, b)
    return np.minimum(a, b)


def max2(a: Any, b: Any) -> Any:
    if isinstance(a, float) and isinstance(b, float):
        return UNKNOWN if a != a or b != b else max(a, b)
    return np.maximum(a, b)


def clip(a: Any, low: Any, high: Any) -> Any:
    return min2(max2(a, low), high)


def isfinite(a: Any) -> Any:
    if isinstance(a, float):
        return a if a != a else float(math.isfinite(a))
    return np.where(np.isnan(a), UNKNOWN, np.isfinite(a))


def known(a: Any) -> Any:
    return float(a == a) if isinstance(a, float) else (~np.isnan(a)).astype(np.float64)


def default(a: Any, otherwise: Any) -> Any:
    if isinstance(a, float):
        return a if a == a else otherwise
    return np.where(np.isnan(a), otherwise, a)


def nice(a: Any) -> Any:
    """The nearest of 1, 2, 3, 5 times a power of ten, in the logarithm: what a person would type.

    >>> nice(0.00023), nice(43.0), nice(-0.8)
    (0.0002, 50.0, -1.0)
    """
    if not isinstance(a, float):
        return np.array([nice(float(v)) for v in a])
    if a == 0.0 or not math.isfinite(a):
        return a
    exponent = math.floor(math.log10(abs(a)))
    choices = [float(f"{digit}e{e}") for e in (exponent, exponent + 1) for digit in (1, 2, 3, 5)]
    best = min((c for c in choices if 0.0 < c < math.inf), key=lambda c: abs(math.log(c / abs(a))))
    return math.copysign(best, a)


SCALARS: dict[str, tuple[int, Callable[..., Any]]] = {
    "abs": (1, absolute),
    "log10": (1, log10),
    "sqrt": (1, sqrt),
    "nice": (1, nice),
    "clip": (3, clip),
    "min2": (2, min2),
    "max2": (2, max2),
}
"""Number to number: name, number of arguments, function."""


# --- over time ------------------------------------------------------------------------------------


def median_of_rows(rows: Array) -> Array:
    """Median of each row of known values, (rows,); np.median would bring numpy's masked arrays into memory."""
    ordered = np.sort(rows, axis=1)
    middle = rows.shape[1] // 2
    result: Array = ordered[:, middle] if rows.shape[1] % 2 else (ordered[:, middle - 1] + ordered[:, middle]) / 2
    return result


def windowed(name: str, series: Series, steps: int, fraction: float = 0.5) -> Array:
    """A rolling statistic over the last `steps` steps up to the newest sample, one value per target.

    The window is widened to hold three samples where sampling is sparse. A value is known from three
    samples that span at least half of the window on (two in a window of two steps).
    """
    need = min(LEAST_SAMPLES, steps)
    window = series.window(steps, need)
    if len(window.steps) < need:
        return np.full(series.size, UNKNOWN)
    missing = np.isnan(window.mean)
    if not missing.any():
        if 2 * (window.steps[-1] - window.steps[0]) < steps:
            return np.full(series.size, UNKNOWN)
        return _DENSE[name](window, fraction)
    return _sparse(name, series, window, ~missing, steps, need, fraction)


def _sparse(name: str, series: Series, window: Window, measured: Mask, steps: int, need: int, fraction: float) -> Array:
    """The same where some samples lack some targets, as when timers visit a few layers at a time."""
    too_few = measured.sum(axis=1) < need
    if too_few.any():
        newest = window.steps[-1]
        window = series.window(WIDEST * steps, WIDEST * need)
        measured = ~np.isnan(window.mean)
        recent = window.steps > newest - steps
        measured &= recent[None, :] | too_few[:, None]
    columns = len(window.steps)
    first = window.steps[np.argmax(measured, axis=1)]
    last = window.steps[columns - 1 - np.argmax(measured[:, ::-1], axis=1)]
    enough = (measured.sum(axis=1) >= need) & (2 * (last - first) >= steps)
    result = _MASKED[name](window, measured, fraction)
    return np.where(enough, result, UNKNOWN)


def _between(lower: Array, upper: Array, weight: Any) -> Array:
    # equal ends first: inf - inf would be unknown
    return np.where(lower == upper, lower, lower + (upper - lower) * weight)


def _dense_quantile(window: Window, fraction: float) -> Array:
    position = fraction * (window.mean.shape[1] - 1)
    low = math.floor(position)
    if position == low:
        return np.partition(window.mean, low, axis=1)[:, low].astype(np.float64)
    # one pivot and a maximum: two pivots cost up to eight times as much
    part = np.partition(window.mean, low + 1, axis=1)
    lower = part[:, : low + 1].max(axis=1).astype(np.float64)
    return _between(lower, part[:, low + 1].astype(np.float64), position - low)


def _masked_quantile(window: Window, measured: Mask, fraction: float) -> Array:
    ordered = np.sort(np.where(measured, window.mean, np.nan), axis=1)  # NaN goes to the end
    position = fraction * np.maximum(measured.sum(axis=1) - 1, 0)
    low = np.floor(position).astype(np.int64)
    high = np.minimum(low + 1, np.maximum(measured.sum(axis=1) - 1, 0))
    rows = np.arange(len(ordered))
    return _between(ordered[rows, low].astype(np.float64), ordered[rows, high].astype(np.float64), position - low)


def _moments(window: Window, measured: Mask | None) -> tuple[Array, Array, Array, Array]:
    """Samples, mean, sum of squared deviations, and the deviations themselves (0 where not measured)."""
    x = window.mean.astype(np.float64)
    if measured is None:
        n = np.full(len(x), float(x.shape[1]))
        mean = x.mean(axis=1)
        deviation = x - mean[:, None]
    else:
        n = measured.sum(axis=1).astype(np.float64)
        mean = np.where(measured, x, 0.0).sum(axis=1) / n
        deviation = np.where(measured, x - mean[:, None], 0.0)
    return n, mean, (deviation * deviation).sum(axis=1), deviation


def _slope(window: Window, measured: Mask | None) -> tuple[Array, Array]:
    """Least-squares slope per step, and its t statistic."""
    n, _, squares, deviation = _moments(window, measured)
    if measured is None:
        time = (window.steps - window.steps.mean())[None, :]
    else:
        centre = np.where(measured, window.steps, 0).sum(axis=1) / n
        time = np.where(measured, window.steps - centre[:, None], 0.0)
    spread = (time * time).sum(axis=1)
    slope = (time * deviation).sum(axis=1) / spread
    residual = np.maximum(squares - slope * slope * spread, 0.0)
    # float32 samples of an exact line leave rounding of this size, which is no noise
    residual = np.where(residual <= 1e-12 * squares, 0.0, residual)
    error = np.sqrt(residual / (n - 2.0) / spread)
    t = np.where(slope == 0.0, 0.0, np.clip(slope / error, -_STEEPEST, _STEEPEST))
    return slope, t


def _ends(window: Window, measured: Mask) -> Array:
    rows = np.arange(len(measured))
    first = window.mean[rows, np.argmax(measured, axis=1)].astype(np.float64)
    last = window.mean[rows, measured.shape[1] - 1 - np.argmax(measured[:, ::-1], axis=1)].astype(np.float64)
    change: Array = last - first
    return change


def _lowest(window: Window, measured: Mask | None) -> Array:
    low = window.low if measured is None else np.where(measured, window.low, np.inf)
    lowest: Array = low.min(axis=1).astype(np.float64)
    return lowest


def _highest(window: Window, measured: Mask | None) -> Array:
    high = window.high if measured is None else np.where(measured, window.high, -np.inf)
    highest: Array = high.max(axis=1).astype(np.float64)
    return highest


def _deviation(window: Window, measured: Mask | None) -> Array:
    n, _, squares, _ = _moments(window, measured)
    return np.sqrt(squares / n)


_MASKED: dict[str, Callable[[Window, Mask, float], Array]] = {
    "mean": lambda w, m, q: _moments(w, m)[1],
    "median": lambda w, m, q: _masked_quantile(w, m, 0.5),
    "quantile": _masked_quantile,
    "min": lambda w, m, q: _lowest(w, m),
    "max": lambda w, m, q: _highest(w, m),
    "range": lambda w, m, q: _highest(w, m) - _lowest(w, m),
    "std": lambda w, m, q: _deviation(w, m),
    "slope": lambda w, m, q: _slope(w, m)[0],
    "slope_t": lambda w, m, q: _slope(w, m)[1],
    "delta": lambda w, m, q: _ends(w, m),
    "count": lambda w, m, q: m.sum(axis=1).astype(np.float64),
    "count_true": lambda w, m, q: np.where(m, w.mean, 0.0).sum(axis=1).astype(np.float64),
}
_DENSE: dict[str, Callable[[Window, float], Array]] = {
    "mean": lambda w, q: w.mean.mean(axis=1, dtype=np.float64),
    "median": lambda w, q: _dense_quantile(w, 0.5),
    "quantile": _dense_quantile,
    "min": lambda w, q: _lowest(w, None),
    "max": lambda w, q: _highest(w, None),
    "range": lambda w, q: _highest(w, None) - _lowest(w, None),
    "std": lambda w, q: _deviation(w, None),
    "slope": lambda w, q: _slope(w, None)[0],
    "slope_t": lambda w, q: _slope(w, None)[1],
    "delta": lambda w, q: w.mean[:, -1].astype(np.float64) - w.mean[:, 0],
    "count": lambda w, q: np.full(len(w.mean), float(w.mean.shape[1])),
    "count_true": lambda w, q: w.mean.sum(axis=1, dtype=np.float64),
}
WINDOWS: tuple[str, ...] = (*(name for name in _DENSE if name != "count_true"), "ema")


# --- over targets ---------------------------------------------------------------------------------


def _over(reduce: Callable[[Array, float], float]) -> Callable[[Array, float], float]:
    def over(values: Array, fraction: float = 0.5) -> float:
        present = values[~np.isnan(values)]
        return float(reduce(present, fraction)) if len(present) else UNKNOWN

    return over


def _quantile(values: Array, fraction: float) -> float:
    position = fraction * (len(values) - 1)
    low = math.floor(position)
    high = min(low + 1, len(values) - 1)
    part = np.partition(values, (low, high))
    lower, upper = float(part[low]), float(part[high])
    return lower if lower == upper else lower + (upper - lower) * (position - low)


REDUCERS: dict[str, Callable[[Array, float], float]] = {
    "any": _over(lambda v, q: v.max()),
    "all": _over(lambda v, q: v.min()),
    "frac": _over(lambda v, q: v.mean()),
    "count": _over(lambda v, q: v.sum()),
    "median": _over(lambda v, q: _quantile(v, 0.5)),
    "mean": _over(lambda v, q: v.mean()),
    "sum": _over(lambda v, q: v.sum()),
    "max": _over(lambda v, q: v.max()),
    "min": _over(lambda v, q: v.min()),
    "quantile": _over(_quantile),
}
"""Over the known targets; unknown where none is."""

OF_CONDITIONS = ("any", "all", "frac", "count")
"""The reducers that take a condition; the others take a number."""


def depth_slope(values: Array, order: NDArray[np.int64]) -> float:
    """Least-squares slope of the value against the layer's place in the order of execution, per layer."""
    ordered = values[order]
    ordered = ordered[~np.isnan(ordered)]
    if len(ordered) < 3:
        return UNKNOWN
    place = np.arange(len(ordered)) - (len(ordered) - 1) / 2
    return float((place * (ordered - ordered.mean())).sum() / (place * place).sum())


def end_of(values: Array, order: NDArray[np.int64]) -> float:
    """The first known value along `order`."""
    ordered = values[order]
    present = ordered[~np.isnan(ordered)]
    return float(present[0]) if len(present) else UNKNOWN


def largest_per_owner(values: Array, owners: NDArray[np.int64], size: int) -> Array:
    """The largest value of each owner's members, as of a layer's parameters; unknown where none is known."""
    result = np.full(size, UNKNOWN)
    owned = owners >= 0
    np.fmax.at(result, owners[owned], values[owned])
    return result
