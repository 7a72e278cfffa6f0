"""Which parts of a condition are baselines: what a signal was, that what it is now is held against.

While a rule fires, its baselines stand still, else a lasting spike would soon teach the median that
spikes are normal, and the finding would clear while the sickness goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nndoctor.rules.expression import Expression

_BASELINES = ("mean", "median", "min", "max", "std", "ema", "quantile", "range")


def baselines_of(conditions: Iterable[Expression]) -> tuple[Expression, ...]:
    """The windowed values over a series that the same comparison also reads over a shorter window, or bare.

    In ``grad.norm / median(grad.norm, 200) > 10`` it is the median; ``slope_t(loss, 300) > 4`` has none.
    """
    found: dict[str, Expression] = {}
    for condition in conditions:
        for comparison in _comparisons(condition):
            for expression in _in_comparison(comparison):
                found[expression.key] = expression
    return tuple(found.values())


def _comparisons(expression: Expression) -> Iterator[Expression]:
    if expression.operation == "compare":
        yield expression
        return
    for argument in expression.arguments:
        yield from _comparisons(argument)


def _in_comparison(comparison: Expression) -> Iterator[Expression]:
    reads: dict[str, list[tuple[float, Expression]]] = {}
    for steps, read in _reads(comparison):
        series = read.arguments[0] if steps else read
        reads.setdefault(series.key, []).append((steps, read))
    for of_series in reads.values():
        shortest = min(steps for steps, _ in of_series)
        for steps, read in of_series:
            if steps > shortest and read.name in _BASELINES:
                yield read


def _reads(expression: Expression) -> Iterator[tuple[float, Expression]]:
    """Each reading of a series: (steps of its window, the window), (0, the signal) where it is read bare."""
    if expression.operation == "window":
        yield expression.number, expression
    elif expression.operation == "signal":
        yield 0.0, expression
    elif expression.operation not in ("initial", "held", "ever"):
        for argument in expression.arguments:
            yield from _reads(argument)
