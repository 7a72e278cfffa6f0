"""The judge: feeds frames to a ruleset's conditions and keeps the state of every rule and target.

One engine serves live runs and recorded ones; what it says depends on the sequence of frames alone.
A rule goes from ok over pending (``for`` not reached) to firing, from firing over clearing (``keep``
not over) to cleared, per target; an unknown condition moves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndoctor.findings import (
    Confidence,
    Diagnosis,
    Finding,
    Fix,
    NotExamined,
    ProbeFailure,
    State,
    ordered,
    with_incident,
    with_places,
)
from nndoctor.history import History
from nndoctor.rules.baselines import baselines_of
from nndoctor.rules.evaluation import Cell, Graph, Source, depth_order, matching
from nndoctor.rules.evidence import Witness, testimony, witnesses_of
from nndoctor.rules.explaining import explained
from nndoctor.rules.expression import Expression
from nndoctor.rules.functions import UNKNOWN, Array, Value
from nndoctor.rules.ruleset import Rule, Ruleset
from nndoctor.rules.schema import Duration
from nndoctor.signals import CATALOGUE, Axis, Catalogue, Frame, Signal, Targets

REFRESH_STEPS = 10  # how often the message, values and fixes of a firing finding are computed anew


EVERY_STEP_UNTIL = 100
QUIET_PACE = 10
QUIET_SHARE = 20
SLOWEST_QUIET_PACE = 50
RESTING_SHARE = 50
SLOWEST_RESTING_PACE = 200
"""After step 100, steps that bring nothing but the run's own curves are judged at every tenth only, then at every twentieth
of the run so far, at last every 50 steps: five per cent later than at once, at a tenth of the cost; a loss that stands
out is judged at once. A statistic that is silent rests for a fiftieth of the run, 200 steps at most; contracts and what
is pending or firing never rest."""

LOUD = 1.5
"""A loss that is so many times the largest of the steps judged last is judged at once: one that diverges is looked at
three times before it has doubled twice."""


class Judge:
    """Judges a run by a ruleset, frame by frame.

    Args:
        ruleset: what `load_rulesets` gave.
        targets: layers, parameters and groups known so far; `grow` adds to them.
        catalogue: the signals that frames may hold.
        planned_steps: how long the run is meant to be, for durations in percent.

    The ruleset's records appear in `history` under their names, beside the signals.
    """

    def __init__(
        self,
        ruleset: Ruleset,
        targets: Targets,
        catalogue: Catalogue = CATALOGUE,
        *,
        planned_steps: int | None = None,
    ) -> None:
        records = ruleset.records
        kept = catalogue.extended(
            Signal(name, e.axis, "", "A record of the ruleset.") for name, e in records.items() if name not in catalogue
        )
        self.ruleset = ruleset
        self.history = History(targets, kept)
        self._graph = Graph(self.history)
        self._clock = _Clock(self.history, planned_steps)
        for name, expression in records.items():
            self._graph.keep(name, expression)
        self._explained_by = {rule.id: rule.docs.explained_by for rule in ruleset.rules if rule.disabled is None}
        self._judged = 0
        self._loudness = _Loudness()
        self._names: frozenset[str] = frozenset()
        self._watches = tuple(_Watch(rule, self._graph, self._clock) for rule in ruleset.rules if rule.disabled is None)

    def keep_only_what_is_needed(self, also: Iterable[str] = ()) -> None:
        """Drop the samples of signals that no rule reads, except `also`: the verdicts stay, most memory goes."""
        self.history.keep_only(also)

    @property
    def targets(self) -> Targets:
        return self.history.targets

    def grow(self, targets: Targets) -> None:
        """Take on targets that appeared since; they only grow at the end."""
        if targets == self.history.targets:
            return
        self.history.grow(targets)
        self._graph.grow()
        for watch in self._watches:
            watch.grow()

    def feed(self, frame: Frame) -> bool:
        """Add a frame and judge what is due. True if a finding began, ended, moved, or changed its fix.

        Raises:
            ValueError: the frame does not fit the history; nothing was judged.
        """
        self.history.append(frame)
        self._clock.tick(frame)
        stands_out = self._loudness.stands_out(frame)
        if not stands_out and self._may_wait(frame):
            return False
        self._judged = frame.step
        self._loudness.judged()
        changed = False
        with np.errstate(all="ignore"):
            self._graph.advance(frame)
            for watch in self._watches:
                if watch.is_due(frame.step):
                    changed |= watch.judge(frame.step)
        return changed

    def _may_wait(self, frame: Frame) -> bool:
        """Whether `frame` only goes on with the curves of the run and is judged together with a later one.

        Most steps bring a loss and a time and nothing else; to judge each of them would cost more than a
        short step may. Windows see every sample all the same. It depends on the frames alone, never on
        which rules are loaded, and on nothing in the first steps.
        """
        names = frozenset(frame.values)
        same, self._names = names == self._names, names
        if not same or frame.step <= EVERY_STEP_UNTIL or frame.step - self._judged >= _quiet_pace(frame.step):
            return False
        catalogue = self.history.catalogue
        return all(catalogue[name].per == "run" for name in names)

    def findings(self) -> tuple[Finding, ...]:
        """Everything that fires or has fired: root causes first, what explains each symptom set."""
        found = [finding for watch in self._watches if (finding := watch.finding()) is not None]
        explain = explained(found, self.ruleset.explain, self.targets, self._clock.steps)
        return ordered(
            [
                replace(f, explained_by=explain[f.rule], fixes=()) if f.rule in explain else self._against_others(f, found)
                for f in found
            ]
        )

    def _against_others(self, finding: Finding, found: Sequence[Finding]) -> Finding:
        """The finding with the other explanations that there could have been, ruled out or not."""
        watches = {watch.rule.id: watch for watch in self._watches}
        there = {f.diagnosis for f in found}
        ruled_out: dict[str, None] = {}
        unknown: dict[str, None] = {}
        for id in self._explained_by.get(finding.rule, ()):
            watch = watches.get(id)
            if watch is None or watch.rule.diagnosis in there:
                continue
            (ruled_out if watch.examined else unknown)[watch.rule.diagnosis] = None
        open_ = tuple(diagnosis for diagnosis in unknown if diagnosis not in ruled_out)
        return replace(finding, ruled_out=tuple(ruled_out), not_ruled_out=open_)

    def not_examined(self) -> tuple[NotExamined, ...]:
        """The rules that could not be judged so far, and why."""
        measured = set(self.history.measured())
        watched = {watch.rule.id: watch for watch in self._watches}
        reasons = []
        for rule in self.ruleset.rules:
            watch = watched.get(rule.id)
            if watch is None:
                reasons.append(NotExamined(rule.id, f"switched off: {rule.disabled}"))
            elif not watch.examined:
                reasons.append(NotExamined(rule.id, watch.why_not(measured)))
        return tuple(reasons)

    def pending(self) -> int:
        """How many rules have a condition that holds, though not for long enough yet."""
        return sum(watch.is_pending() for watch in self._watches)

    def diagnosis(
        self, facts: Mapping[str, Any] | None = None, probe_failures: Sequence[ProbeFailure] = ()
    ) -> Diagnosis:
        """All there is to say about the run so far."""
        places = (facts or {}).get("places", {})
        incidents = (facts or {}).get("incidents", ())
        return Diagnosis(
            findings=tuple(with_incident(with_places(finding, places), incidents) for finding in self.findings()),
            not_examined=self.not_examined(),
            probe_failures=tuple(probe_failures),
            steps=self.history.step,
            rules=len(self.ruleset.rules),
            layers=self.targets.modules,
            facts=dict(facts or {}),
        )


def _resting_pace(step: int) -> int:
    """Steps between two looks of a statistic that is silent and of which nothing is pending."""
    return min(SLOWEST_RESTING_PACE, step // RESTING_SHARE)


def _quiet_pace(step: int) -> int:
    return min(SLOWEST_QUIET_PACE, max(QUIET_PACE, step // QUIET_SHARE))


class _Loudness:
    """Whether the loss of a frame is far above those that were judged last."""

    def __init__(self) -> None:
        self._spans = (float("-inf"), float("-inf"))
        self._since = float("-inf")

    def stands_out(self, frame: Frame) -> bool:
        """Hold the loss of `frame` against the largest of the last two spans between two judgings."""
        found = frame.values.get("loss")
        if found is None:
            return False
        loss = abs(float(found[0]))
        self._since = max(self._since, loss)
        return loss > LOUD * max(self._spans) > 0

    def judged(self) -> None:
        """A new span begins."""
        self._spans, self._since = (self._spans[1], self._since), float("-inf")


class _Clock:
    """Converts durations to steps, from what the frames so far tell."""

    def __init__(self, history: History, planned_steps: int | None) -> None:
        self._history, self._planned = history, planned_steps
        self._first: Frame | None = None
        self._last: Frame | None = None
        self._batches = history.series("loader.batches") if "loader.batches" in history.catalogue else None

    def tick(self, frame: Frame) -> None:
        self._first = self._first or frame
        self._last = frame

    def steps(self, duration: Duration) -> float:
        """The duration in steps; infinite where the run has not told enough to know."""
        if duration.unit == "steps" or duration.amount == 0.0:
            return duration.amount
        unit = {"epochs": self._epoch, "s": self._second, "%": self._percent}[duration.unit]()
        return duration.amount * unit if unit == unit else float("inf")

    def _epoch(self) -> float:
        if self._batches is not None and self._batches.count:
            return self._batches.last()
        if self._last is None or not self._last.epoch:
            return UNKNOWN
        return self._last.step / self._last.epoch

    def _second(self) -> float:
        first, last = self._first, self._last
        if first is None or last is None or last.time <= first.time:
            return UNKNOWN
        return (last.step - first.step) / (last.time - first.time)

    def _percent(self) -> float:
        return UNKNOWN if self._planned is None else self._planned / 100


class _Watch:
    """One rule over one run: its cells, the state of each target, and the finding."""

    def __init__(self, rule: Rule, graph: Graph, clock: _Clock) -> None:
        self.rule, self._graph, self._clock = rule, graph, clock
        self.examined = False
        self._state = Source(f"rule {rule.id}")
        self._frozen = self._freeze()
        self._when = self._cell(rule.when)
        self._clear = None if rule.clear_when is None else self._cell(rule.clear_when)
        self._where = None if rule.where is None else self._cell(rule.where)
        self._witnesses: tuple[Witness, ...] = witnesses_of(rule, graph, self._cell)
        for expression in self._asked():
            self._cell(expression)  # remembering functions must see the run from its first step
        self._judged_step, self._judged_frame = 0, 0
        self._refreshed = 0
        self._quiet = True
        self._may_rest = rule.kind != "contract"
        self._resize()
        self._finding: Finding | None = None
        self._culprits: tuple[int, ...] = ()

    # --- cells ---

    def _asked(self) -> list[Expression]:
        asked = [*self.rule.message.expressions()]
        for condition, reason in self.rule.against:
            asked += [condition, *reason.expressions()]
        for fix in self.rule.fixes:
            asked += [*fix.title.expressions(), *(v for v in fix.set.values() if isinstance(v, Expression))]
        return asked

    def _cell(self, expression: Expression) -> Cell:
        return self._graph.cell(expression, self._frozen)

    def _freeze(self) -> dict[str, Cell]:
        conditions = [c for c in (self.rule.when, self.rule.clear_when) if c is not None]
        return {e.key: self._frozen_cell(e) for e in baselines_of(conditions)}

    def _frozen_cell(self, expression: Expression) -> Cell:
        """The baseline `expression`, standing still for the targets at which the rule fires."""
        inner = self._graph.cell(expression)
        kept: list[Value] = [UNKNOWN]

        def compute() -> Value:
            fresh, before = inner.get(), kept[0]
            if not self._active.any():
                kept[0] = fresh
            elif isinstance(fresh, float):
                kept[0] = fresh if before != before else before
            else:
                old = np.full(len(fresh), UNKNOWN)
                old[: np.size(before)] = before
                still = self._active if inner.axis == self.rule.scope else True
                kept[0] = np.where(still & ~np.isnan(old), old, fresh)
            return kept[0]

        return Cell(self._graph, inner.axis, (*inner.sources, self._state), compute)

    # --- judging ---

    def grow(self) -> None:
        for cell in self._frozen.values():
            cell.forget()
        self._resize()

    def _resize(self) -> None:
        targets = self._graph.history.targets
        size, scope = targets.size(self.rule.scope), self.rule.scope
        fresh = not hasattr(self, "_active")
        have = 0 if fresh else len(self._active)
        self._active: NDArray[np.bool_] = _grown(None if fresh else self._active, size, False)
        self._over: NDArray[np.bool_] = _grown(None if fresh else self._over, size, False)
        self._held: Array = _grown(
            None if fresh else self._held, size, -1.0
        )  # steps the condition held; -1: it did not
        self._ended: Array = _grown(None if fresh else self._ended, size, -1.0)
        self._before: Array = _grown(None if fresh else self._before, size, UNKNOWN)
        if fresh or size > have:
            self._excluded = matching(self.rule.excluded, scope, targets) if self.rule.excluded else []
            self._order = depth_order(targets) if scope == "layer" else np.arange(size)

    def is_due(self, step: int) -> bool:
        rule, frame = self.rule, self._judged_frame
        if rule.on_missing == "skip":
            if self._quiet:
                if not self._when.moved_since(frame):
                    return False
            elif not (self._when.sampled_since(frame) or (self._clear is not None and self._clear.sampled_since(frame))):
                return False
        if self._judged_frame:
            waited = step - self._judged_step
            if waited < self._steps(rule.every) or (self._may_rest and waited < _resting_pace(step)):
                return False
        return rule.warmup.amount == 0.0 or step > self._steps(rule.warmup)

    def _steps(self, duration: Duration) -> float:
        return duration.amount if duration.unit == "steps" else self._clock.steps(duration)

    def judge(self, step: int) -> bool:
        """Move the state of every target; True if the finding changed."""
        since = step - self._judged_step if self._judged_frame else 0
        self._judged_step, self._judged_frame = step, self._graph.now
        verdict = self._when.get()
        if self._quiet and self._stays_quiet(verdict):
            return False
        values = self._settled(verdict)
        holds, unknown = values == 1.0, np.isnan(values)
        began = self._begin(holds, unknown, since)
        ended = self._end(values, unknown, since, began)
        self._quiet = not (self._active.any() or (self._held >= 0.0).any())
        self._may_rest = self._quiet and self.rule.kind != "contract"
        return self._tell(step, holds, began or ended)

    def _stays_quiet(self, verdict: Value) -> bool:
        """The cheap way out for what is judged most: nothing fires, nothing is about to."""
        if self.rule.on_missing != "skip":
            return False
        if isinstance(verdict, float):
            self.examined |= verdict == verdict
            return verdict != 1.0
        if not self.examined:
            self.examined = not bool(np.isnan(verdict).all())
        return not (verdict == 1.0).any()

    def _settled(self, verdict: Value) -> Array:
        """The verdict per target, what is missing settled by ``on_missing``, excluded targets unknown."""
        values = np.full(len(self._active), verdict) if isinstance(verdict, float) else verdict.copy()
        unknown = np.isnan(values)
        self.examined = self.examined or not bool(unknown.all())
        if self.rule.on_missing == "fire":
            values[unknown] = 1.0
        elif self.rule.on_missing == "hold":
            values[unknown] = self._before[unknown]
        self._before = values.copy()
        if self._excluded:
            values[self._excluded] = UNKNOWN
        return values

    def _begin(self, holds: NDArray[np.bool_], unknown: NDArray[np.bool_], since: int) -> bool:
        longer = np.where(self._held >= 0.0, self._held + since, 0.0)
        self._held = np.where(holds, longer, np.where(unknown, self._held, -1.0))
        fires = holds & ~self._active & (self._held >= self._steps(self.rule.hold))
        if not fires.any():
            return False
        self._active = self._active | fires
        self._over[fires], self._ended[fires] = False, -1.0
        self._state.touch(self._graph.now)
        return True

    def _end(self, values: Array, unknown: NDArray[np.bool_], since: int, began: bool) -> bool:
        if not self._active.any():
            return False
        if self._clear is None:
            over = values == 0.0
        else:
            clear = self._clear.get()
            over, unknown = (clear == 1.0) & (values != 1.0), unknown & np.isnan(clear)
        longer = np.where(self._ended >= 0.0, self._ended + since, 0.0)
        self._ended = np.where(over, longer, np.where(unknown, self._ended, -1.0))
        before = self._over
        self._over = self._active & (over | (unknown & before))
        done = self._over & over & (self._ended >= self._steps(self.rule.keep))
        if done.any():
            self._active = self._active & ~done
            self._over = self._over & ~done
            self._held = np.where(done, -1.0, self._held)
            self._state.touch(self._graph.now)
        return bool(done.any() or (self._over != before).any())

    def is_pending(self) -> bool:
        return bool(((self._held >= 0.0) & ~self._active).any())

    # --- telling ---

    def _tell(self, step: int, holds: NDArray[np.bool_], moved: bool) -> bool:
        """Bring the finding up to date; True if it changed in more than its numbers."""
        before = self._finding
        if not self._active.any():
            if before is None or before.state == "cleared":
                return False
            self._finding = replace(before, state="cleared")
            return True
        firing = bool((self._active & ~self._over).any())
        state: State = "firing" if firing else "clearing"
        if not firing:
            assert before is not None
            self._finding = replace(before, state=state)
            return before.state != state
        if before is not None and not moved and step - self._refreshed < REFRESH_STEPS:
            self._finding = replace(before, last_step=step, state=state)
            return False
        self._refreshed = step
        self._finding = self._describe(step, state)
        return before is None or _essence(before) != _essence(self._finding)

    def _describe(self, step: int, state: State) -> Finding:
        rule, before = self.rule, self._finding
        axis, indices = self._located()
        names = self._graph.history.targets.names(axis)
        targets = () if axis == "run" else tuple(names[i] for i in indices)
        first_step = step if before is None else before.first_step

        def value(expression: Expression) -> float:
            return _at(self._cell(expression), axis, indices)

        old = before.evidence if before is not None else ()
        evidence = testimony(self._witnesses, lambda w: w.testify(axis, indices, names, first_step, step, old))
        against = tuple(
            reason.fill(value, targets)
            for condition, reason in rule.against
            if _at(self._cell(condition), axis, indices) == 1.0
        )
        return Finding(
            rule=rule.id,
            diagnosis=rule.diagnosis,
            severity=rule.severity,
            confidence=_lowered(rule.confidence, len(against)),
            targets=targets,
            first_step=first_step,
            last_step=step,
            state=state,
            message=rule.message.fill(value, targets),
            evidence=evidence,
            fixes=tuple(self._fix(index, axis, indices, targets) for index in range(len(rule.fixes))),
            kind=rule.kind,
            against=against,
        )

    def _located(self) -> tuple[Axis, tuple[int, ...]]:
        """Where the rule fires: an axis and indices along it, in order of execution."""
        if self.rule.scope != "run":
            order = self._order
            return self.rule.scope, tuple(order[self._active[order]].tolist())
        if self._where is None:
            return "run", ()
        blamed = np.asarray(self._where.get()) == 1.0
        axis = self._where.axis
        order = depth_order(self._graph.history.targets) if axis == "layer" else np.arange(len(blamed))
        if blamed.any():
            self._culprits = tuple(order[blamed[order]].tolist())
        return axis, self._culprits

    def _fix(self, index: int, axis: Axis, indices: tuple[int, ...], targets: Sequence[str]) -> Fix:
        fix = self.rule.fixes[index]
        values: dict[str, float | str] = {}
        for key, wanted in fix.set.items():
            value = _at(self._cell(wanted), axis, indices) if isinstance(wanted, Expression) else wanted
            if value == value:  # an unknown value is left out rather than guessed
                values[key] = value
        title = fix.title.fill(lambda e: _at(self._cell(e), axis, indices), targets)
        return Fix(title, values, fix.confidence, fix.safety, fix.call, fix.place)

    def finding(self) -> Finding | None:
        """The finding as it stands, silenced targets taken out of it."""
        found = self._finding
        if found is None or not self.rule.silences:
            return found
        targets = self._graph.history.targets
        axis = self.rule.scope if self.rule.where is None else self.rule.where.axis
        for silence in self.rule.silences:
            if silence.until is not None and self._graph.history.step > self._clock.steps(silence.until):
                continue
            if not silence.layers:
                return replace(found, suppressed=silence.reason)
            names = targets.names(axis)
            silent = {names[i] for i in matching(silence.layers, axis, targets)}
            loud = tuple(t for t in found.targets if t not in silent)
            if not loud:
                return replace(found, suppressed=silence.reason)
            found = replace(found, targets=loud)
        return found

    def why_not(self, measured: set[str]) -> str:
        rule, history = self.rule, self._graph.history
        missing = [name for name in rule.when.signals() if name not in measured]
        if missing:
            names = missing[0] if len(missing) == 1 else f"{', '.join(missing[:-1])} and {missing[-1]}"
            return f"{names} {'was' if len(missing) == 1 else 'were'} never measured"
        warmup = self._clock.steps(rule.warmup)
        if warmup == float("inf"):
            return f"its warm-up of {rule.warmup} cannot be told in steps on this run"
        if history.step <= warmup:
            return f"its warm-up of {rule.warmup} is not over at step {history.step}"
        return f"what it compares was not known in the first {history.step} steps: the run is too short for it"


def _at(cell: Cell, axis: Axis, indices: tuple[int, ...]) -> float:
    """The value of a cell for the run, or at the first of the places."""
    value = cell.get()
    if isinstance(value, float):
        return value
    if cell.axis == axis and indices:
        return float(value[indices[0]])
    return UNKNOWN


def _lowered(confidence: Confidence, degrees: int) -> Confidence:
    """One degree less for each thing that speaks against."""
    scale: tuple[Confidence, ...] = ("high", "medium", "low")
    return scale[min(len(scale) - 1, scale.index(confidence) + degrees)]


def _essence(finding: Finding) -> tuple[Any, ...]:
    return (finding.state, finding.targets, finding.first_step, [(f.title, dict(f.set), f.call) for f in finding.fixes], finding.against)


def _grown(array: Any, size: int, fill: Any) -> Any:
    if array is None:
        return np.full(size, fill)
    return np.append(array, np.full(size - len(array), fill, dtype=array.dtype))
