"""Rules over runs of yesterday: which fired when, how long before the loss broke, and where they erred."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from nndoctor.findings import Severity
from nndoctor.history import History
from nndoctor.rules.engine import Judge
from nndoctor.rules.ruleset import Ruleset
from nndoctor.signals import Frame, Targets

BROKEN = 1.5
"""The loss broke where it is not finite, or where it stays above so many times the median of its first five values."""

CONFIRMED_BY = 10
"""Samples in a row that have to be above that, so that one bad batch is no break."""


@dataclass(frozen=True, slots=True)
class Fired:
    """A rule in a run: since which step, how bad, at how many targets, and what explains it there."""

    rule: str
    severity: Severity
    step: int
    targets: int
    explained_by: str | None


@dataclass(frozen=True, slots=True)
class RunResult:
    """What the rules said about one run.

    Args:
        run: its name.
        steps: how long it was.
        healthy: whether it is known to be healthy, so that everything above ``info`` is a false alarm.
        broke: the step at which the loss broke; None if it never did.
        fired: every rule that fired, the earliest first.
        unexamined: rules that could not be judged, because what they read was not measured.
    """

    run: str
    steps: int
    healthy: bool
    broke: int | None
    fired: tuple[Fired, ...]
    unexamined: tuple[str, ...]

    @property
    def false_alarms(self) -> tuple[Fired, ...]:
        return tuple(f for f in self.fired if f.severity > Severity.INFO) if self.healthy else ()

    def lead(self, fired: Fired) -> int | None:
        """Steps by which it came before the loss broke; negative if after; None where the loss never broke."""
        return None if self.broke is None else self.broke - fired.step


def backtest(
    ruleset: Ruleset, run: str, frames: Iterable[Frame], targets: Targets, *, healthy: bool, rules: frozenset[str]
) -> RunResult:
    """Judge one run by the whole ruleset and report on `rules` of it.

    The whole ruleset judges, so that what explains a finding is known; only `rules` are reported.
    """
    judge = Judge(replace(ruleset, tests=()), targets, ruleset.catalogue)
    watch = _LossWatch()
    for frame in frames:
        judge.feed(frame)
        watch.see(frame)
    found = [f for f in judge.findings() if f.rule in rules and f.suppressed is None]
    fired = [Fired(f.rule, f.severity, f.first_step, max(1, len(f.targets)), f.explained_by) for f in found]
    unexamined = tuple(item.rule for item in judge.not_examined() if item.rule in rules)
    history: History = judge.history
    return RunResult(run, history.step, healthy, watch.broke, tuple(sorted(fired, key=lambda f: f.step)), unexamined)


class _LossWatch:
    """Finds the first step at which the loss broke."""

    def __init__(self) -> None:
        self.broke: int | None = None
        self._first: list[float] = []
        self._above: list[int] = []

    def see(self, frame: Frame) -> None:
        if self.broke is not None:
            return
        nonfinite = frame.values.get("loss.nonfinite")
        if nonfinite is not None and len(nonfinite) and nonfinite[0] > 0:
            self.broke = frame.step
            return
        values = frame.values.get("loss")
        if values is None or not len(values) or math.isnan(values[0]):
            return
        loss = float(values[0])
        if len(self._first) < 5:
            self._first.append(loss)
            return
        start = sorted(self._first)[2]
        self._above = [*self._above, frame.step] if loss > start + (BROKEN - 1) * abs(start) else []
        if len(self._above) >= CONFIRMED_BY:
            self.broke = self._above[0]
