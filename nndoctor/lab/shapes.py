"""Names for the shapes of curves along training paths, and how linear, quadratic and real path compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nndoctor.lab.paths import PathCurve
from nndoctor.lab.results import Result

Shape: TypeAlias = Literal["flat", "decreasing", "increasing", "valley", "bump", "wave"]
Bend: TypeAlias = Literal["straight", "convex", "concave", "mixed"]

PATTERNS = (
    "monotone decreasing, convex parabola",
    "monotone increasing, concave parabola",
    "slightly convex, flat region",
    "convex, bump",
    "ascending convex, wave",
)
"""What nnvis calls the pairs of linear and quadratic path of a single parameter."""

FLAT = 1e-3
"""A curve whose loss varies by less than this share of its mean is flat."""

REVERSAL = 0.02
"""A change of direction by less than this share of the curve's range is none: noise, not a turn."""


@dataclass(frozen=True)
class CurveShape(Result):
    """The shape of one curve: where it goes, how it bends, and how much of it is level.

    Args:
        shape: ``flat``, ``decreasing``, ``increasing``, ``valley`` (down, then up), ``bump``, or ``wave`` (two turns or more).
        bend: sign of the curvature throughout; ``mixed`` where it changes.
        level: longest share of the path along which the loss stays within a twentieth of its range.
    """

    shape: Shape
    bend: Bend
    level: float


def curve_shape(alphas: Sequence[float], losses: Sequence[float]) -> CurveShape:
    """The shape of a loss curve over the path.

    Raises:
        ValueError: fewer than three points, or a loss that is not finite.
    """
    xs, ys = np.asarray(alphas, dtype=float), np.asarray(losses, dtype=float)  # (points,)
    if len(xs) < 3 or len(xs) != len(ys) or not np.isfinite(ys).all():
        raise ValueError(
            f"expected three or more points with finite losses, got {len(xs)} alphas and {list(losses)[:5]}"
        )
    spread = float(np.ptp(ys))
    if spread <= FLAT * max(abs(float(ys.mean())), 1e-12):
        return CurveShape("flat", "straight", 1.0)
    return CurveShape(_shape(ys, REVERSAL * spread), _bend(xs, ys), _level(xs, ys, spread / 20))


def pattern(linear: PathCurve, quadratic: PathCurve) -> str | None:
    """The name in :data:`PATTERNS` of what the two paths of one parameter look like together; None: another one."""
    straight = curve_shape(linear.alphas, linear.losses)
    curved = curve_shape(quadratic.alphas, quadratic.losses)
    if straight.shape == "decreasing" and curved.bend == "convex":
        return PATTERNS[0]
    if straight.shape == "increasing" and curved.bend == "concave":
        return PATTERNS[1]
    if straight.bend == "convex" and straight.shape == "increasing" and curved.shape == "wave":
        return PATTERNS[4]
    if straight.bend == "convex" and curved.shape in ("bump", "wave"):
        return PATTERNS[3]
    if straight.bend == "convex" and curved.level >= 0.4:
        return PATTERNS[2]
    return None


@dataclass(frozen=True)
class PathComparison(Result):
    """Linear, quadratic and real path of one training over the same axis.

    Half way the quadratic path *is* the real one by construction, where the middle is a checkpoint of it: look elsewhere, too.

    Args:
        real_below_linear, real_below_quadratic: share of the way, without its ends, along which the optimizer's own loss is lower.
        linear_meets, quadratic_meets: the first place from which on the path stays at or below the real loss plus a
            twentieth of the range; None where it never does but at the end.
    """

    linear: PathCurve
    quadratic: PathCurve | None
    real: PathCurve
    real_below_linear: float
    real_below_quadratic: float | None
    linear_meets: float | None
    quadratic_meets: float | None


def compared(real: PathCurve, linear: PathCurve, quadratic: PathCurve | None = None) -> PathComparison:
    """How the straight and the curved path lie to the real one; real losses are interpolated between checkpoints."""
    below, meets = zip(*(_against(real, path) for path in (linear, quadratic)), strict=True)
    return PathComparison(linear, quadratic, real, float(below[0] or 0.0), below[1], meets[0], meets[1])


def _against(real: PathCurve, path: PathCurve | None) -> tuple[float | None, float | None]:
    if path is None:
        return None, None
    xs = np.asarray(path.alphas)
    inside = (xs > 0) & (xs < 1)
    own = np.asarray(path.losses)[inside]
    theirs = np.interp(xs[inside], real.alphas, real.losses)
    close = own <= theirs + np.ptp(np.asarray(real.losses)) / 20
    last_far = np.flatnonzero(~close)
    start = 0 if len(last_far) == 0 else int(last_far[-1]) + 1
    meets = float(xs[inside][start]) if start < len(own) else None
    return float((theirs < own).mean()), meets


def _shape(ys: NDArray[np.float64], tolerance: float) -> Shape:
    """By the turns of the curve; one is only believed once the loss has moved back by more than `tolerance`."""
    directions: list[int] = []
    low = high = float(ys[0])
    for value in map(float, ys[1:]):
        low, high = min(low, value), max(high, value)
        heading = directions[-1] if directions else 0
        if heading >= 0 and value < high - tolerance:
            directions.append(-1)
            low = high = value
        elif heading <= 0 and value > low + tolerance:
            directions.append(1)
            low = high = value
    if len(directions) > 2:
        return "wave"
    names: dict[tuple[int, ...], Shape] = {
        (-1,): "decreasing", (1,): "increasing", (-1, 1): "valley", (1, -1): "bump", (): "flat",
    }  # fmt: skip
    return names[tuple(directions)]


def _bend(xs: NDArray[np.float64], ys: NDArray[np.float64]) -> Bend:
    slopes = np.diff(ys) / np.diff(xs)
    turns = np.diff(slopes)
    tolerance = REVERSAL * float(np.ptp(slopes)) if np.ptp(slopes) > 1e-9 * np.abs(slopes).max() else np.inf
    up, down = bool((turns > tolerance).any()), bool((turns < -tolerance).any())
    names: dict[tuple[bool, bool], Bend] = {
        (False, False): "straight", (True, False): "convex", (False, True): "concave", (True, True): "mixed",
    }  # fmt: skip
    return names[up, down]


def _level(xs: NDArray[np.float64], ys: NDArray[np.float64], tolerance: float) -> float:
    longest, start = 0.0, 0
    for end in range(len(ys)):
        while np.ptp(ys[start : end + 1]) > tolerance:
            start += 1
        longest = max(longest, float(xs[end] - xs[start]))
    return longest / float(xs[-1] - xs[0])
