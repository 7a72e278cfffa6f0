"""An expression over the frames of a run: its values, where it holds, and which part of it decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndoctor.history import History, Series, Whole
from nndoctor.rules.evaluation import Cell, Graph
from nndoctor.rules.expression import Expression, Names, parse
from nndoctor.signals import Axis, Catalogue, Frame, Targets

_KEEP_UNIT = frozenset({"mean", "median", "min", "max", "std", "ema", "quantile", "range", "delta"})
_SAME_UNIT = frozenset({"abs", "clip", "min2", "max2", "nice"})


@dataclass(frozen=True, slots=True)
class Share:
    """One part of a condition: at how many of the samples at which it was known it was true, anywhere."""

    text: str
    true: int
    known: int


@dataclass(frozen=True, slots=True)
class Course:
    """What an expression was over a run.

    Args:
        text: the expression.
        axis: what it has one value for.
        condition: whether it is true or false rather than a number.
        unit: of its values, where that can be told.
        targets: the names that the columns stand for; empty for the run.
        whole: its values in few columns; of a condition, 1 where it held.
        sides: of a comparison, the values of its left and right side.
        stretches: first and last steps between which it held at any target, without a break.
        held_at: targets at which it ever held.
        parts: the conditions that it joins.
        samples, known: steps with a new value, and those at which it was known somewhere.
        last_step: of the run.
    """

    text: str
    axis: Axis
    condition: bool
    unit: str
    targets: tuple[str, ...]
    whole: Whole
    sides: tuple[tuple[str, Whole], ...]
    stretches: tuple[tuple[int, int], ...]
    held_at: tuple[str, ...]
    parts: tuple[Share, ...]
    samples: int
    known: int
    last_step: int


def course(
    text: str, frames: Iterable[Frame], targets: Targets, catalogue: Catalogue, records: Mapping[str, Expression]
) -> Course:
    """Follow the expression `text` over `frames`, in fixed memory.

    Args:
        records: named expressions that it may use, as a ruleset's `records`.

    Raises:
        ExpressionError: with the position of the mistake in `text`.
    """
    expression = parse(text, Names(catalogue, records))
    graph = Graph(History(targets, catalogue))
    main = _Followed(graph, expression, text)
    comparisons = _comparisons(expression) if expression.condition else []
    parts = [_Followed(graph, part, _text_of(part, text)) for part in comparisons]
    sides = [_Followed(graph, side, _text_of(side, text)) for part in comparisons[:1] if part.operation == "compare" for side in part.arguments]
    with np.errstate(all="ignore"):
        for frame in frames:
            graph.history.append(frame)
            graph.advance(frame)
            for followed in (main, *parts, *sides):
                followed.look(frame.step)
    names = () if expression.axis == "run" else targets.names(expression.axis)
    return Course(
        text=text,
        axis=expression.axis,
        condition=expression.condition,
        unit="" if expression.condition else unit_of(expression, catalogue),
        targets=names,
        whole=main.series.whole(),
        sides=tuple((side.text, side.series.whole()) for side in sides),
        stretches=tuple(main.stretches),
        held_at=tuple(name for name, held in zip(names, main.held.tolist(), strict=False) if held),
        parts=tuple(Share(part.text, part.true, part.known) for part in parts) if len(parts) > 1 else (),
        samples=main.samples,
        known=main.known,
        last_step=graph.history.step,
    )


class _Followed:
    """One expression, looked at on every frame that may have changed it."""

    def __init__(self, graph: Graph, expression: Expression, text: str) -> None:
        self.text = text
        self.series = Series(graph.history.targets.size(expression.axis))
        self.held: NDArray[np.bool_] = np.zeros(self.series.size, bool)
        self.stretches: list[tuple[int, int]] = []
        self.samples = self.known = self.true = 0
        self._condition = expression.condition
        self._graph, self._cell, self._seen = graph, _cell(graph, expression), 0
        self._holds = False

    def look(self, step: int) -> None:
        if not self._cell.sampled_since(self._seen) and self.samples:
            return
        self._seen = self._graph.now
        values = np.atleast_1d(np.asarray(self._cell.get(), np.float64))
        self.samples += 1
        measured = ~np.isnan(values)
        self.series.append(step, values.astype(np.float32))
        if not measured.any():
            return
        self.known += 1
        if self._condition:
            true = measured & (values > 0.5)
            self.held |= true
            self._stretch(step, bool(true.any()))

    def _stretch(self, step: int, holds: bool) -> None:
        if holds:
            self.true += 1
            if self._holds:
                self.stretches[-1] = (self.stretches[-1][0], step)
            else:
                self.stretches.append((step, step))
        self._holds = holds


def _cell(graph: Graph, expression: Expression) -> Cell:
    cell = graph.cell(expression)
    cell.get()  # cells below it are made now: what remembers must see the run from its first step
    return cell


def _comparisons(expression: Expression) -> list[Expression]:
    """The conditions that a condition joins, in the order in which they are written."""
    if expression.operation in ("and", "or", "not", "over", "ever", "held") and expression.condition:
        return [part for argument in expression.arguments for part in _comparisons(argument)]
    return [expression] if expression.condition else []


def _text_of(part: Expression, text: str) -> str:
    return text[part.offset : part.offset + part.length].strip() or part.name


def unit_of(expression: Expression, catalogue: Catalogue) -> str:
    """The unit of a number, as far as it follows from the signals in it; empty where it does not."""
    operation, name, parts = expression.operation, expression.name, expression.arguments
    if operation == "signal":
        return catalogue[name].unit
    units = [unit_of(part, catalogue) for part in parts if part.operation not in ("number", "levels")]
    if not units or "" in units:
        return ""
    same = all(unit == units[0] for unit in units)
    if operation == "window":
        return units[0] if name in _KEEP_UNIT else f"{units[0]} per step" if name == "slope" else ""
    if operation == "over":
        return units[0] if name.split("_")[0] in ("median", "mean", "max", "min", "sum", "quantile") else ""
    if operation in ("record", "initial", "negate", "default", "first_layer", "last_layer", "of_layer", "to_param"):
        return units[0]
    if operation == "scalar":
        return units[0] if name in _SAME_UNIT and same else ""
    if operation == "arithmetic" and len(units) == len(parts) == 2:
        return "ratio" if name == "/" and same else units[0] if name in ("+", "-") and same else ""
    if operation == "arithmetic" and name in ("*", "/") and parts[1].operation == "number":
        return units[0]
    return ""
