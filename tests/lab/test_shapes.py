"""Synthetic curves get the names that people would give them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nndoctor.lab.paths import PathCurve
from nndoctor.lab.shapes import PATTERNS, compared, curve_shape, pattern

XS = np.linspace(-0.5, 1.5, 41)


def curve(function: Callable[[np.ndarray], np.ndarray], kind: str = "linear", xs: np.ndarray = XS) -> PathCurve:
    ys = tuple(map(float, function(xs) + np.zeros_like(xs)))
    return PathCurve(kind, "w[0]", tuple(map(float, xs)), ys, (None,) * len(xs), 1.0, 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("function", "shape", "bend"),
    [
        (lambda x: 2 + 1e-5 * x, "flat", "straight"),
        (lambda x: 2 - x, "decreasing", "straight"),
        (lambda x: np.exp(-x), "decreasing", "convex"),
        (lambda x: 2 + x, "increasing", "straight"),
        (lambda x: -np.exp(-x), "increasing", "concave"),
        (lambda x: (x - 0.5) ** 2, "valley", "convex"),
        (lambda x: -((x - 0.5) ** 2), "bump", "concave"),
        (lambda x: np.sin(2 * np.pi * x), "wave", "mixed"),
    ],
)
def test_a_curve_is_called_by_its_turns_and_its_bend(function: Callable[[np.ndarray], np.ndarray], shape: str, bend: str) -> None:
    found = curve_shape(XS, function(XS))
    assert (found.shape, found.bend) == (shape, bend)


def test_noise_is_no_turn() -> None:
    rng = np.random.default_rng(0)
    assert curve_shape(XS, np.exp(-XS) + 0.003 * rng.standard_normal(41)).shape == "decreasing"


def test_too_few_points_and_broken_losses_are_refused() -> None:
    with pytest.raises(ValueError, match="three or more points"):
        curve_shape([0, 1], [1, 2])
    with pytest.raises(ValueError, match="finite"):
        curve_shape([0, 1, 2], [1, 2, float("nan")])


@pytest.mark.parametrize(
    ("linear", "quadratic", "expected"),
    [
        (lambda x: 2 - x, lambda x: (x - 0.6) ** 2, 0),
        (lambda x: 2 + x, lambda x: -((x - 0.4) ** 2), 1),
        (lambda x: 0.1 * (x - 0.8) ** 2 + 1, lambda x: 1 + np.maximum(0, np.abs(x - 0.5) - 0.6) ** 2, 2),
        (lambda x: (x - 0.5) ** 2, lambda x: -((x - 0.5) ** 2), 3),
        (lambda x: np.exp(x), lambda x: np.sin(2 * np.pi * x), 4),
        (lambda x: 0 * x + 1, lambda x: 0 * x + 1, None),
    ],
)
def test_pairs_of_paths_get_the_published_names(
    linear: Callable[[np.ndarray], np.ndarray], quadratic: Callable[[np.ndarray], np.ndarray], expected: int | None
) -> None:
    found = pattern(curve(linear), curve(quadratic, "quadratic"))
    assert found == (None if expected is None else PATTERNS[expected])


def test_the_comparison_says_where_the_paths_meet_the_real_one() -> None:
    xs = np.linspace(0, 1, 21)
    real = curve(lambda x: np.exp(-8 * x), "real", xs)
    linear = curve(lambda x: 1 - x * (1 - np.exp(-8)), "linear", xs)
    quadratic = curve(lambda x: np.exp(-8 * x) + 0.3 * (x < 0.42), "quadratic", xs)
    found = compared(real, linear, quadratic)
    assert found.real_below_linear == 1
    assert found.linear_meets == pytest.approx(0.95)
    assert found.quadratic_meets == pytest.approx(0.45)
