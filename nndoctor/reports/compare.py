"""Several runs side by side: findings, where they first differ, what was set differently, curves over each other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndoctor.findings import Finding
from nndoctor.reports.charts import Chart, Line, number, run_line, spread_line
from nndoctor.reports.view import Grade, RunView, grade, spelled
from nndoctor.signals import Catalogue, Frame, Targets

DIFFERS = 1e-4
"""Relative difference from which two values are not the same any more: far above the rounding of float32 sums."""

PARTED = 0.2
"""Relative difference of the losses from which runs have gone ways of their own, if it lasts."""

FOR_GOOD = 20
"""Samples of the loss in a row that have to differ by that."""

_NOT_OF_THE_TRAINING = ("step.", "time.", "memory.", "busy.", "compile.")
_UNITS_OF_THE_MACHINE = ("s", "bytes")
_SETTINGS = (
    "optimizer", "optimizer_settings", "model", "parameters", "trainable_parameters", "layers", "loss", "loss_found", "device", "dtype", "seed",
    "seeds", "context", "compiled", "versions", "taken_for",
)  # fmt: skip
"""The facts that somebody chose, in the order in which they are told; the others are what came of them."""

_CURVES = (
    ("loss", "Loss"), ("val.loss", "Validation loss"), ("val.accuracy", "Validation accuracy"), ("lr", "Learning rate"),
    ("grad.total_norm", "Gradient norm"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Difference:
    """Two values that differ: at which step, of which signal, where, and both."""

    step: int
    signal: str
    target: str
    first: float
    second: float

    def __str__(self) -> str:
        where = f" of {self.target}" if self.target else ""
        return f"step {self.step}: {self.signal}{where} is {number(self.first)} and {number(self.second)}"


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where a run leaves the first one.

    Args:
        first: the first value that differs at all; None where every value measured in both is the same.
        parted: the first step from which the losses stay apart; None where they never do.
        compared: steps that both measured.
    """

    first: Difference | None
    parted: Difference | None
    compared: int


@dataclass(frozen=True, slots=True)
class Row:
    """One rule in all runs: its findings, None where it is silent."""

    rule: str
    title: str
    findings: tuple[Finding | None, ...]

    @property
    def differs(self) -> bool:
        return len({None if f is None else f.severity for f in self.findings}) > 1


@dataclass(frozen=True, slots=True)
class Setting:
    """A fact that is not the same in all runs; ``-`` where a run does not tell it."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs side by side; divergences are those of every run but the first from the first."""

    names: tuple[str, ...]
    views: tuple[RunView, ...]
    grades: tuple[Grade, ...]
    rows: tuple[Row, ...]
    settings: tuple[Setting, ...]
    divergences: tuple[Divergence, ...]
    charts: tuple[Chart, ...]

    @property
    def verdict(self) -> str:
        """One sentence: what the difference is, and what is found in one run only."""
        changed = ", ".join(f"{s.name} {' / '.join(s.values)}" for s in self.settings[:3])
        more = f" and {len(self.settings) - 3} more settings" if len(self.settings) > 3 else ""
        apart = [row.rule for row in self.rows if row.differs]
        told = f"{', '.join(apart[:4])}{' and more' if len(apart) > 4 else ''} not in all of them" if apart else "the same findings"
        return f"{len(self.names)} runs: {changed + more if changed else 'the same settings'}; {told}."


def compare(views: Sequence[RunView], names: Sequence[str], divergences: Sequence[Divergence]) -> Comparison:
    """Put the runs side by side.

    Args:
        views: the runs, judged; the first is what the others are held against.
        names: what to call them, all different.
        divergences: of each but the first, from `diverge`.
    """
    return Comparison(
        tuple(names), tuple(views), tuple(grade(view.diagnosis) for view in views), tuple(_rows(views)),
        tuple(_settings(views)), tuple(divergences), tuple(_charts(views, names)),
    )  # fmt: skip


def unique(names: Sequence[str]) -> tuple[str, ...]:
    """The names of run folders without their time, where they stay different; numbered where they are alike."""
    bare = [re.sub(r"^\d{8}(-\d{6})?-(?=.)", "", name) for name in names]
    shown = bare if len(set(bare)) == len(bare) else list(names)
    return tuple(name if shown.count(name) == 1 else f"{name} ({index + 1})" for index, name in enumerate(shown))


# -- where they leave each other ------------------------------------------------------------------------------------


def diverge(
    one: Iterable[Frame], other: Iterable[Frame], targets: tuple[Targets, Targets], catalogue: Catalogue
) -> Divergence:
    """Read two runs side by side, in fixed memory, and find where the second leaves the first.

    Times and memory are left out; layers and parameters are held against those of the same name.
    """
    first: Difference | None = None
    watch = _Parting()
    compared = 0
    for a, b in _together(one, other):
        compared += 1
        if first is None:
            first = _first_difference(a, b, targets, catalogue)
        watch.see(a, b)
    return Divergence(first, watch.parted, compared)


def _together(one: Iterable[Frame], other: Iterable[Frame]) -> Iterator[tuple[Frame, Frame]]:
    """Frames of the same step of both."""
    left, right = iter(one), iter(other)
    a, b = next(left, None), next(right, None)
    while a is not None and b is not None:
        if a.step == b.step:
            yield a, b
        step = min(a.step, b.step)
        a = next(left, None) if a.step == step else a
        b = next(right, None) if b.step == step else b


def _first_difference(a: Frame, b: Frame, targets: tuple[Targets, Targets], catalogue: Catalogue) -> Difference | None:
    """The largest relative difference among the signals of one step, those of layers before those of the run."""
    found: list[tuple[bool, float, Difference]] = []
    for name in a.values:
        if name not in b.values or name not in catalogue or _is_of_the_machine(name, catalogue):
            continue
        per = catalogue[name].per
        one, other, names = _aligned(a.values[name], b.values[name], targets[0].names(per), targets[1].names(per))
        away = _relative(one, other)
        if away.size and float(away.max()) > DIFFERS:
            at = int(away.argmax())
            target = names[at] if per != "run" and at < len(names) else ""
            found.append((per == "run", -float(away[at]), Difference(a.step, name, target, float(one[at]), float(other[at]))))
    # settings of the run explain what its layers do, so that they come first where they differ
    settings = [item for item in found if item[2].signal in ("lr",) or item[2].signal.startswith("group.")]
    return min(settings or found, key=lambda item: item[:2])[2] if found else None


def _is_of_the_machine(name: str, catalogue: Catalogue) -> bool:
    return name.startswith(_NOT_OF_THE_TRAINING) or catalogue[name].unit in _UNITS_OF_THE_MACHINE


def _aligned(
    one: NDArray[Any], other: NDArray[Any], names: Sequence[str], others: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64], Sequence[str]]:
    """The values of the targets that both have, in the order of the first."""
    if tuple(names[: len(one)]) == tuple(others[: len(other)]):
        size = min(len(one), len(other))
        return one[:size].astype(np.float64), other[:size].astype(np.float64), names
    where = {name: index for index, name in enumerate(others[: len(other)])}
    shared = [(index, where[name]) for index, name in enumerate(names[: len(one)]) if name in where]
    left, right = [i for i, _ in shared], [j for _, j in shared]
    return one[left].astype(np.float64), other[right].astype(np.float64), [names[i] for i in left]


def _relative(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """|a - b| over the larger of both; 1 where only one is finite, 0 where neither is or one was not measured."""
    with np.errstate(all="ignore"):
        size = np.maximum(np.abs(one), np.abs(other))
        away = np.where(size > 0, np.abs(one - other) / np.where(size > 0, size, 1.0), 0.0)
    finite = np.isfinite(one) & np.isfinite(other)
    known = ~(np.isnan(one) | np.isnan(other))
    result: NDArray[np.float64] = np.where(finite, away, np.where(known & (one != other), 1.0, 0.0))
    return result


class _Parting:
    """Finds the first step from which two losses stay apart."""

    def __init__(self) -> None:
        self.parted: Difference | None = None
        self._since: Difference | None = None
        self._count = 0

    def see(self, a: Frame, b: Frame) -> None:
        if self.parted is not None or "loss" not in a.values or "loss" not in b.values:
            return
        one, other = (values.astype(np.float64)[:1] for values in (a.values["loss"], b.values["loss"]))
        if not one.size or not other.size:
            return
        if float(_relative(one, other)[0]) < PARTED:
            self._since, self._count = None, 0
            return
        if self._since is None:
            self._since = Difference(a.step, "loss", "", float(one[0]), float(other[0]))
        self._count += 1
        if self._count >= FOR_GOOD:
            self.parted = self._since


# -- what they are --------------------------------------------------------------------------------------------------


def _rows(views: Sequence[RunView]) -> Iterator[Row]:
    """Every rule that fired in any run: those that differ first, the worst before the others."""
    by_rule = [{finding.rule: finding for finding in view.diagnosis.findings} for view in views]
    rules = dict.fromkeys(rule for found in by_rule for rule in found)
    rows = [Row(rule, spelled(rule), tuple(found.get(rule) for found in by_rule)) for rule in rules]
    yield from sorted(rows, key=lambda row: (not row.differs, -max(f.severity for f in row.findings if f is not None)))


def _settings(views: Sequence[RunView]) -> Iterator[Setting]:
    facts = [dict(_leaves(view.facts)) for view in views]
    told: set[tuple[str, ...]] = set()
    for name in dict.fromkeys(name for fact in facts for name in fact):
        values = tuple(fact.get(name, "-") for fact in facts)
        if len(set(values)) > 1:
            told.add(values)
            yield Setting(name, values)
    for name, what in (("input.batch_size", "batch size"), ("lr.peak", "largest learning rate"), ("clip.max_norm", "clipped at")):
        latest = tuple(_latest(view, name) for view in views)
        if len(set(latest)) > 1 and latest not in told:
            yield Setting(what, latest)
    steps = tuple(str(view.diagnosis.steps) for view in views)
    if len(set(steps)) > 1:
        yield Setting("steps", steps)


def _leaves(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each setting by its own name, ``adam.lr`` and ``versions.torch``, as it is shown."""
    for name in _SETTINGS:
        if name in facts:
            yield from _leaf("" if name == "optimizer_settings" else name, facts[name])


def _leaf(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaf(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, (list, tuple)):
        yield name, ", ".join(_shown(item) for item in value)
    else:
        yield name, _shown(value)


def _shown(value: Any) -> str:
    return number(value).replace("\u202f", " ") if isinstance(value, float) else str(value)


def _latest(view: RunView, name: str) -> str:
    latest = view.history.latest(name) if name in view.history.catalogue else None
    return "-" if latest is None or not len(latest) else number(float(latest[0])).replace("\u202f", " ")


def _charts(views: Sequence[RunView], names: Sequence[str]) -> Iterator[Chart]:
    for signal, title in _CURVES:
        lines = [run_line(view.history, signal, name) for view, name in zip(views, names, strict=True)]
        yield from _chart(signal, title, lines, views[0])
    lines = [spread_line(view.history, "update.ratio", name) for view, name in zip(views, names, strict=True)]
    yield from _chart("update.ratio", "Update ratio, median layer", lines, views[0])


def _chart(signal: str, title: str, lines: Sequence[Line | None], view: RunView) -> Iterator[Chart]:
    drawn = tuple(line for line in lines if line is not None)
    if drawn:
        yield Chart(f"compare.{signal}", title, drawn, view.history.catalogue[signal].unit, zeros=signal in ("grad.total_norm", "update.ratio"))
