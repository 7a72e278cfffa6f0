"""What speaks for a finding: each thing that the condition compares, with its threshold and its curve."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from nndoctor.findings import Evidence
from nndoctor.history import Series
from nndoctor.rules import functions
from nndoctor.rules.evaluation import Cell, Graph
from nndoctor.rules.expression import REDUCERS, Expression
from nndoctor.rules.functions import UNKNOWN
from nndoctor.rules.ruleset import Rule
from nndoctor.signals import Axis

MOST_WITNESSES = 6
STEPS_AROUND = 200

_MIRRORED = {">": "<", "<": ">", ">=": "<=", "<=": ">=", "==": "==", "!=": "!="}
_KEEPS_UNIT = ("mean", "median", "min", "max", "std", "ema", "quantile", "range", "delta", "sum", "abs", "min2", "max2")


class Witness:
    """One line of evidence for one rule: reads a value, its threshold and the curve behind it."""

    def __init__(
        self,
        text: str,
        expression: Expression,
        graph: Graph,
        cell: Cell,
        *,
        threshold: Cell | None = None,
        comparison: str = "",
        holds: Cell | None = None,
    ) -> None:
        self._text, self._cell, self._holds = text, cell, holds
        self._threshold, self._comparison = threshold, comparison
        self._unit = unit_of(expression, graph)
        self._curve = curve_of(expression, graph)

    def testify(
        self,
        axis: Axis,
        indices: tuple[int, ...],
        names: Sequence[str],
        first_step: int,
        step: int,
        before: Sequence[Evidence],
    ) -> Evidence | None:
        """The evidence at the first of the places where the rule fires.

        None where it does not speak for the finding: it is unknown, belongs to other targets, or is the side of
        an ``or`` that did not hold when the rule fired.
        """
        if self._cell.axis not in ("run", axis) or (self._cell.axis != "run" and not indices):
            return None
        value = _value(self._cell, axis, indices)
        if value != value:
            return None
        index = indices[0] if self._cell.axis != "run" else None
        target = None if index is None else names[index]
        old = next((e for e in before if e.signal == self._text and e.target == target), None)
        if self._holds is not None and old is None and _value(self._holds, axis, indices) != 1.0:
            return None
        if old is not None and step > first_step + STEPS_AROUND:
            steps, values = old.steps, old.values
        else:
            steps, values = self._around(first_step, index)
        threshold = None if self._threshold is None else _value(self._threshold, axis, indices)
        return Evidence(
            signal=self._text,
            target=target,
            value=value,
            threshold=None if threshold is None or threshold != threshold else threshold,
            comparison=self._comparison,
            unit=self._unit,
            steps=steps,
            values=values,
        )

    def _around(self, first_step: int, index: int | None) -> tuple[tuple[int, ...], tuple[float, ...]]:
        if self._curve is None:
            return (), ()
        series, reducer, fraction = self._curve
        steps, values = series.tail()
        begin, end = np.searchsorted(steps, [first_step - STEPS_AROUND, first_step + STEPS_AROUND + 1])
        steps, block = steps[begin:end], values[:, begin:end]
        if reducer is not None:
            columns = [functions.REDUCERS[reducer](column, fraction) for column in block.T.astype(np.float64)]
            line = np.array(columns)
        elif index is not None and index < len(block):
            line = block[index]
        elif len(block) == 1:
            line = block[0]
        else:
            return (), ()
        known = ~np.isnan(line)
        return tuple(steps[known].tolist()), tuple(line[known].tolist())


def witnesses_of(rule: Rule, graph: Graph, cell: Callable[[Expression], Cell]) -> tuple[Witness, ...]:
    """What the condition compares, then what the rule names as evidence, then the bare signals."""
    found: dict[str, Witness] = {}
    text = str(rule.texts.get("when", ""))
    for comparison in comparisons_of(rule.when):
        left, right = comparison.arguments
        symbol = comparison.name
        if left.operation in ("number", "levels") and right.operation not in ("number", "levels"):
            left, right, symbol = right, left, _MIRRORED[symbol]
        shown = _slice(text, left)
        witness = Witness(
            shown, left, graph, cell(left), threshold=cell(right), comparison=symbol, holds=cell(comparison)
        )
        found.setdefault(f"{shown} {symbol}", witness)
    named = [*rule.evidence, *((e.name, e) for e in rule.when.walk() if e.operation == "signal")]
    for shown, expression in named:
        found.setdefault(shown, Witness(shown, expression, graph, cell(expression)))
    return tuple(found.values())


def testimony(witnesses: Sequence[Witness], hear: Callable[[Witness], Evidence | None]) -> tuple[Evidence, ...]:
    """What the witnesses say, each signal once, at most six of them."""
    said: dict[tuple[str, str | None], Evidence] = {}
    for witness in witnesses:
        evidence = hear(witness)
        if evidence is not None and (evidence.signal, evidence.target) not in said:
            said[evidence.signal, evidence.target] = evidence
        if len(said) == MOST_WITNESSES:
            break
    return tuple(said.values())


def comparisons_of(expression: Expression) -> Iterator[Expression]:
    """The comparisons that a condition is made of, as far as they stand in its own text."""
    if expression.operation == "compare":
        yield expression
    elif expression.operation not in ("record", "window", "initial"):
        for argument in expression.arguments:
            yield from comparisons_of(argument)


def curve_of(expression: Expression, graph: Graph) -> tuple[Series, str | None, float] | None:
    """The series behind a value, and how its targets are reduced to one line."""
    kept = graph.curve(expression)
    if kept is not None:
        return kept, None, 0.5
    if expression.operation == "over":
        inner = curve_of(expression.arguments[0], graph)
        reducer = REDUCERS[expression.name][0]
        takes_numbers = reducer not in functions.OF_CONDITIONS
        return (inner[0], reducer, expression.fraction) if inner is not None and takes_numbers else None
    for argument in expression.arguments:
        inner = curve_of(argument, graph)
        if inner is not None:
            return inner
    return None


def unit_of(expression: Expression, graph: Graph) -> str:
    """The unit of a value, as far as its functions keep that of the signal."""
    if expression.operation == "signal":
        return graph.history.catalogue[expression.name].unit
    keeps = expression.operation in ("initial", "default", "first_layer", "last_layer", "of_layer", "to_param")
    reduced = REDUCERS[expression.name][0] if expression.operation == "over" else expression.name
    if keeps or (expression.operation in ("window", "over", "scalar") and reduced in _KEEPS_UNIT):
        return unit_of(expression.arguments[0], graph)
    return ""


def _slice(text: str, expression: Expression) -> str:
    return " ".join(text[expression.offset : expression.offset + expression.length].split()) or expression.name


def _value(cell: Cell, axis: Axis, indices: tuple[int, ...]) -> float:
    value = cell.get()
    if isinstance(value, float):
        return value
    return float(value[indices[0]]) if cell.axis == axis and indices else UNKNOWN
