"""What an experiment is: a claim of a published work, the training that tests it, and the rule that decides from its figures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from nndoctor.zoo.experiments.images import Images

Verdict: TypeAlias = Literal["reproduced", "contradicted", "artefact", "open"]
Curve: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
DIGITS = 5
"""Significant digits that are kept of what was measured."""
POINTS = 40
"""Points that are kept of a curve."""


@dataclass(frozen=True)
class Measured:
    """What the run with one seed gave.

    Args:
        numbers: by name; NaN where something could not be measured.
        curves: (xs, ys) by name.
    """

    numbers: Mapping[str, float]
    curves: Mapping[str, Curve] = field(default_factory=dict)

    def __getitem__(self, name: str) -> float:
        return self.numbers[name]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, rounded, numbers that are none as None."""
        return {
            "numbers": {name: _plain(value) for name, value in self.numbers.items()},
            "curves": {name: [list(map(_plain, part)) for part in curve] for name, curve in self.curves.items()},
        }

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> Measured:
        """What :meth:`to_dict` wrote."""
        curves = {name: (_numbers(xs), _numbers(ys)) for name, (xs, ys) in held["curves"].items()}
        return cls(dict(zip(held["numbers"], _numbers(held["numbers"].values()), strict=True)), curves)


@dataclass(frozen=True)
class Protocol:
    """A training and its measurements, which one experiment or several judge.

    Args:
        name: of its results.
        setup: what is run, at which scale.
        images: the set that the claim was made on; the one that ships is taken where it is not at hand.
        run: measures once, with this seed.
    """

    name: str
    setup: str
    images: str
    run: Callable[[int, Images], Measured]


@dataclass(frozen=True)
class Judgement:
    """The verdict, and one sentence with the figures it rests on."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Plot:
    """What of the measurements is drawn.

    Args:
        curves: names, or starts of names, of curves over `x`; empty: the `numbers`, a row of dots for each.
        scattered: the curves are points without an order.
        limits: values of the criterion, as dashed lines.
    """

    x: str = ""
    y: str = ""
    curves: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    log_x: bool = False
    log_y: bool = False
    scattered: bool = False
    limits: tuple[float, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """A claim that somebody published, and how it is put to the test on small data.

    Args:
        id: ``E1`` and so on.
        title: a few words.
        claim: what was said.
        source: the work and the place in it.
        criterion: what has to be measured for the claim to count as reproduced.
        protocol: what is run.
        judge: the verdict from the measurements of all seeds.
        shown: names of the numbers for the table.
        plot: the figure.
        note: what to make of it.
        seeds: that are run unless others are asked for.
    """

    id: str
    title: str
    claim: str
    source: str
    criterion: str
    protocol: Protocol
    judge: Callable[[Sequence[Measured]], Judgement]
    shown: tuple[str, ...]
    plot: Plot
    note: str = ""
    seeds: tuple[int, ...] = (0, 1, 2)


def agreed(held: Sequence[bool], reason: str) -> Judgement:
    """Reproduced where the criterion `held` with every seed, contradicted where with none, else open."""
    verdict: Verdict = "reproduced" if held and all(held) else "open" if any(held) or not held else "contradicted"
    return Judgement(verdict, f"{reason} ({sum(held)} of {len(held)} seeds meet the criterion).")


def mean(runs: Sequence[Measured], name: str) -> float:
    """Mean of a number over the seeds; NaN where one of them could not measure it."""
    return statistics.fmean(run[name] for run in runs) if runs else math.nan


def curve(xs: Sequence[float], ys: Sequence[float], points: int = POINTS) -> Curve:
    """A curve thinned to about `points`, each the median of its neighbours, so that single peaks do not decide how it looks."""
    width = max(1, math.ceil(len(xs) / points))
    groups = [(list(xs[i : i + width]), list(ys[i : i + width])) for i in range(0, len(xs), width)]
    return tuple(group[0][0] for group in groups), tuple(statistics.median(group[1]) for group in groups)


def _plain(value: float) -> float | None:
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e9 else rounded


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(math.nan if value is None else float(value) for value in values)
