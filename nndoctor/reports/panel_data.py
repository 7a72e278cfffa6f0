"""What the live panel knows: a few curves, the layers side by side, root causes and counts, as plain data.

Nothing here knows about terminals. The footer, the lines of a log file, the notebook and ``watch`` all show a
:class:`PanelState`, and tests assert on it rather than on pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndoctor.findings import Diagnosis, Finding, Severity, describe_fix, taken_for
from nndoctor.history import History
from nndoctor.signals import CATALOGUE, Signal, Targets

RECENT_SAMPLES = 256
"""Measurements that a curve of the panel looks back on."""

PANEL_SIGNALS = (
    "loss", "loss.nonfinite", "lr", "grad.total_norm", "grad.nonfinite_total", "update.ratio", "param.update.ratio",
    "grad.norm", "act.rms", "step.time",
)  # fmt: skip
"""What the panel reads by name; whoever keeps only part of a run's history for it keeps these."""

CURVE_POINTS = 96
"""Points kept of them: no panel draws a curve wider than this."""

OWN_SHOWN = 4
"""So many of the signals that a run's own subscribers publish are shown; all of them stand in the report."""

HEALTHY_UPDATE_RATIO = (1e-4, 1e-2)
"""One decade to each side of 1e-3, the rule of thumb of the Stanford CS231n notes (neural networks 3)."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One value of the run over its recent steps.

    Args:
        key: ``loss``, ``lr``, ``grad`` or ``update_ratio``; ``own`` for what a subscriber publishes.
        signal: the signal it was read from.
        value: the newest value; None if it is not finite or was never measured.
        points: means of equal stretches of the recent samples, oldest first; at most ``CURVE_POINTS``.
        steps: how many steps the points span.
        remark: what is worth saying about it (``+44%/300 steps``), empty if nothing is.
        alarming: the remark is about something out of the ordinary.
        nonfinite: the newest measurement was NaN or infinite.
    """

    key: str
    signal: str
    value: float | None
    points: tuple[float, ...] = ()
    steps: int = 0
    remark: str = ""
    alarming: bool = False
    nonfinite: bool = False


@dataclass(frozen=True, slots=True)
class LayerStrip:
    """One signal over all the layers it was measured at, in the order of the model.

    Args:
        signal: which signal (``grad.norm``; the one the worst finding rests on where that is per layer).
        names: the layers.
        values: the newest value of each, None where it is not finite.
        levels: `values` mapped to 0..1: the logarithm for sizes, the value itself for fractions; None as in values.
        sick: positions of the layers that a root cause names.
        worst: position of the layer to look at first, among the sick ones where there are any.
    """

    signal: str
    names: tuple[str, ...]
    values: tuple[float | None, ...]
    levels: tuple[float | None, ...]
    sick: tuple[int, ...] = ()
    worst: int | None = None


@dataclass(frozen=True, slots=True)
class FindingLine:
    """A finding in words, without its evidence.

    Args:
        rule, diagnosis, severity, confidence, state: as in the finding, severity as its label.
        title: the diagnosis in plain words (``learning rate too high``).
        since, until: first and last step at which it fired.
        targets: names of where it fired.
        place_word: what those are: ``layers``, ``parameters``, ``groups`` or ``places``.
        message: one sentence with the numbers.
        fix: what to do (``lr=2e-4``), empty for a symptom.
        fix_confidence: how sure that is.
        cause: rule of the root cause that explains it; None where it is a root cause itself.
        suppressed: the reason given for silencing it.
    """

    rule: str
    diagnosis: str
    severity: str
    confidence: str
    state: str
    title: str
    since: int
    until: int
    targets: tuple[str, ...] = ()
    place_word: str = "places"
    message: str = ""
    fix: str = ""
    fix_confidence: str = ""
    cause: str | None = None
    suppressed: str | None = None

    @property
    def speaks(self) -> bool:
        """It is above info and nobody has silenced it."""
        return self.severity != "info" and self.suppressed is None


@dataclass(frozen=True, slots=True)
class PanelState:
    """Everything the panel shows of a run at one moment.

    Args:
        name: what the run is called.
        status: ``running``, ``finished``, ``crashed`` or ``killed``.
        step: the newest step.
        planned_steps: how many there will be, None if unknown.
        steps_per_second: speed of training, None if unknown.
        overhead: share of the step time that the doctor takes, None if unknown.
        curves: loss, learning rate, gradient norm, update ratio: those that were measured.
        layers: one signal over the layers, None if none was measured.
        findings: all of them, root causes first.
        rules: how many rules were loaded.
        rules_ok: how many were examined and found nothing; None where that is not known.
        pending: rules whose condition holds but not yet for long enough.
        acknowledged: findings that somebody has silenced.
        not_examined: rules that could not be judged; None where that is not known.
        probe_failures: probes that were dismissed.
        verdict: the run in one sentence.
        taken_for: what kind of run the doctor takes it for.
        own: what subscribers of the run's own publish, the first few signals; over layers and parameters their median.
        own_more: how many more of them have been measured, or will be.
    """

    name: str
    status: str = "running"
    step: int = 0
    planned_steps: int | None = None
    steps_per_second: float | None = None
    overhead: float | None = None
    curves: tuple[Curve, ...] = ()
    layers: LayerStrip | None = None
    findings: tuple[FindingLine, ...] = ()
    rules: int = 0
    rules_ok: int | None = None
    pending: int = 0
    acknowledged: int = 0
    not_examined: int | None = None
    probe_failures: tuple[str, ...] = ()
    verdict: str = ""
    taken_for: tuple[str, ...] = ()
    own: tuple[Curve, ...] = ()
    own_more: int = 0

    @property
    def causes(self) -> tuple[FindingLine, ...]:
        """Root causes that hold now, worst first."""
        return tuple(f for f in self.findings if f.speaks and f.cause is None and f.state != "cleared")

    @property
    def recovered(self) -> tuple[FindingLine, ...]:
        """Root causes that held once and no longer do."""
        return tuple(f for f in self.findings if f.speaks and f.cause is None and f.state == "cleared")

    def symptoms(self, cause: FindingLine) -> tuple[FindingLine, ...]:
        """The findings that `cause` explains, directly or through one another."""
        return tuple(f for f in self.findings if f.cause == cause.rule and f.suppressed is None)

    def curve(self, key: str) -> Curve | None:
        return next((curve for curve in self.curves if curve.key == key), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, nothing left out."""
        return asdict(self)


def panel_state(
    history: History,
    diagnosis: Diagnosis,
    *,
    name: str,
    planned_steps: int | None = None,
    steps_per_second: float | None = None,
    overhead: float | None = None,
    pending: int = 0,
    status: str = "running",
    published: Sequence[Signal] = (),
) -> PanelState:
    """The panel's content for a run: what was measured (`history`) and what was found (`diagnosis`).

    `published` are the signals that subscribers of the run publish.
    """
    own = own_curves(history, published)
    measured = PanelState(
        name=name,
        status=status,
        step=history.step,
        planned_steps=planned_steps,
        steps_per_second=_finite(steps_per_second),
        overhead=_finite(overhead),
        curves=curves(history),
        layers=layer_strip(history, diagnosis.findings),
        pending=pending,
        own=own,
        own_more=len(published) - len(own) if own else 0,
    )
    return with_diagnosis(measured, diagnosis, history.targets)


def with_diagnosis(state: PanelState, diagnosis: Diagnosis, targets: Targets | None = None) -> PanelState:
    """`state` with the findings of `diagnosis` in place of its own; what was measured stays."""
    firing = {f.rule for f in diagnosis.findings if f.state != "cleared"}
    lines = finding_lines(diagnosis.findings, targets or Targets())
    if targets is None:
        words = {line.rule: line.place_word for line in state.findings}
        lines = tuple(replace(line, place_word=words.get(line.rule, line.place_word)) for line in lines)
    return replace(
        state,
        step=max(state.step, diagnosis.steps),
        findings=lines,
        rules=diagnosis.rules,
        rules_ok=max(0, diagnosis.rules_looking - len(firing)),
        acknowledged=sum(f.suppressed is not None for f in diagnosis.findings),
        not_examined=len(diagnosis.not_examined),
        probe_failures=tuple(dict.fromkeys(p.probe for p in diagnosis.probe_failures)),
        verdict=diagnosis.verdict,
        taken_for=taken_for(diagnosis.facts),
    )


# ---------------------------------------------------------------------------------------- findings


def finding_lines(findings: Sequence[Finding], targets: Targets) -> tuple[FindingLine, ...]:
    """The findings in words, each symptom under the root cause at the end of its chain of explanations."""
    explained_by = {f.rule: f.explained_by for f in findings}
    return tuple(_finding_line(finding, _root(finding.rule, explained_by), targets) for finding in findings)


def _finding_line(finding: Finding, cause: str | None, targets: Targets) -> FindingLine:
    best = finding.fixes[0] if finding.fixes else None
    return FindingLine(
        rule=finding.rule,
        diagnosis=finding.diagnosis,
        severity=finding.severity.label,
        confidence=finding.confidence,
        state=finding.state,
        title=finding.diagnosis.replace("-", " ").replace("_", " "),
        since=finding.first_step,
        until=finding.last_step,
        targets=finding.targets,
        place_word=_place_word(finding.targets, targets),
        message=finding.message,
        fix=describe_fix(best).removeprefix("set ") if best else "",
        fix_confidence=best.confidence if best else "",
        cause=cause,
        suppressed=finding.suppressed,
    )


def _place_word(names: Sequence[str], targets: Targets) -> str:
    kinds = (("layers", targets.layers), ("parameters", targets.params), ("groups", targets.groups))
    return next((word for word, known in kinds if names and set(names) <= set(known)), "places")


def _root(rule: str, explained_by: Mapping[str, str | None]) -> str | None:
    """The last rule of the chain that explains `rule`; None for a root cause (and for a chain that leads nowhere)."""
    seen = {rule}
    above = explained_by.get(rule)
    root: str | None = None
    while above is not None and above in explained_by and above not in seen:
        root = above
        seen.add(above)
        above = explained_by[above]
    return root


# ------------------------------------------------------------------------------------------ curves


def curves(history: History) -> tuple[Curve, ...]:
    """Loss, learning rate, gradient norm and update ratio over the recent steps; only what was measured."""
    found = (_loss(history), _learning_rate(history), _gradient(history), _update_ratio(history))
    return tuple(curve for curve in found if curve is not None)


def _loss(history: History) -> Curve | None:
    steps, values = _recent(history, "loss")
    broken = _is_positive(history, "loss.nonfinite")
    if not values.size and not broken:
        return None
    remark, alarming = "", False
    if values.size >= 8:
        quarter = values.size // 4
        before, after = median(values[:quarter].tolist()), median(values[-quarter:].tolist())
        if before:
            change = (after - before) / abs(before)
            by = _times(after / before) if change >= 10 and before > 0 else f"{change:+.0%}"
            remark, alarming = f"{by}/{steps[-1] - steps[0]} steps", change > 0.2
    return _curve("loss", "loss", steps, values, remark, alarming, nonfinite=broken)


def _learning_rate(history: History) -> Curve | None:
    steps, values = _recent(history, "lr")
    if not values.size:
        return None
    remark = ""
    if values[-1] > 1.01 * values[0]:
        remark = "rising"
    elif values[-1] < 0.99 * values[0]:
        remark = "falling"
    return _curve("lr", "lr", steps, values, remark)


def _gradient(history: History) -> Curve | None:
    steps, values = _recent(history, "grad.total_norm")
    broken = _is_positive(history, "grad.nonfinite_total")
    if not values.size and not broken:
        return None
    remark, alarming = "", False
    usual = median(values.tolist()) if values.size >= 8 else 0.0
    if usual > 0:
        times = float(values[-1]) / usual
        remark, alarming = f"{_times(times)} median", times > 10
    return _curve("grad", "grad.total_norm", steps, values, remark, alarming, nonfinite=broken)


def _times(factor: float) -> str:
    """``1.4x``, ``31x``, ``4e25x``: at most six characters for what a panel has a few of."""
    if factor < 10:
        return f"{factor:.2g}x"
    return f"{factor:.0f}x" if factor < 10_000 else f"{factor:.0e}x".replace("+0", "").replace("+", "")


def _update_ratio(history: History) -> Curve | None:
    """Median over the layers (or parameters) that moved at all."""
    measured = history.measured()
    signal = next((name for name in ("update.ratio", "param.update.ratio") if name in measured), None)
    if signal is None:
        return None
    steps, table = history.tail(signal, RECENT_SAMPLES)  # (samples,), (samples, targets)
    steps, values = _middle(steps, np.where(table > 0, table, np.nan))
    if not values.size:
        return None
    low, high = HEALTHY_UPDATE_RATIO
    odd = not low <= values[-1] <= high
    return _curve("update_ratio", signal, steps, values, "want 1e-3" if odd else "", odd)


def own_curves(history: History, published: Sequence[Signal]) -> tuple[Curve, ...]:
    """The first few of the `published` signals that have been measured; over several targets their median."""
    measured = history.measured()
    found = []
    for signal in published:
        if signal.name not in measured:
            continue
        steps, table = history.tail(signal.name, RECENT_SAMPLES)  # (samples,), (samples, targets)
        steps, values = _middle(steps, table)
        if values.size:
            found.append(_curve("own", signal.name, steps, values, ""))
        if len(found) == OWN_SHOWN:
            break
    return tuple(found)


def _middle(steps: NDArray[np.int64], table: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The median of each row's finite values, without the rows that have none; (samples,), (samples, targets) to (k,), (k,)."""
    stride = max(1, -(-table.size // 4096))  # bounds the sorting below: a panel is drawn twice a second
    steps, table = steps[::-stride][::-1], table[::-stride][::-1]
    ordered = np.sort(np.where(np.isfinite(table), table, np.nan), axis=1)  # NaN go last
    finite = np.isfinite(ordered).sum(axis=1)
    known = np.flatnonzero(finite)
    return steps[known], ordered[known, (finite[known] - 1) // 2].astype(np.float64)


def _curve(
    key: str,
    signal: str,
    steps: NDArray[np.int64],
    values: NDArray[np.float64],
    remark: str,
    alarming: bool = False,
    *,
    nonfinite: bool = False,
) -> Curve:
    return Curve(
        key=key,
        signal=signal,
        value=None if nonfinite or not values.size else float(values[-1]),
        points=bucketed(values.tolist(), CURVE_POINTS),
        steps=int(steps[-1] - steps[0]) if steps.size else 0,
        remark="not finite" if nonfinite else remark,
        alarming=alarming or nonfinite,
        nonfinite=nonfinite,
    )


def _recent(history: History, name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Steps and finite values of a run signal, oldest first; empty if it was never measured."""
    if name not in history.measured():
        return np.empty(0, np.int64), np.empty(0, np.float64)
    steps, table = history.tail(name, RECENT_SAMPLES)
    values = table[:, 0].astype(np.float64)
    known = np.isfinite(values)
    return steps[known], values[known]


def _is_positive(history: History, name: str) -> bool:
    latest = history.latest(name)
    return latest is not None and bool(latest.size) and bool(latest[0] > 0)


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def bucketed(values: Sequence[float], count: int) -> tuple[float, ...]:
    """`values` as at most `count` means of neighbours; as they are where they are no more than that."""
    if len(values) <= count or count <= 0:
        return tuple(values) if count > 0 else ()
    edges = [round(i * len(values) / count) for i in range(count + 1)]
    return tuple(math.fsum(values[a:b]) / (b - a) for a, b in pairwise(edges))


# ------------------------------------------------------------------------------------------ layers


def layer_strip(history: History, findings: Sequence[Finding]) -> LayerStrip | None:
    """The layers side by side, by the signal that the worst root cause rests on, by ``grad.norm`` otherwise."""
    roots = [
        f
        for f in findings
        if f.explained_by is None and f.suppressed is None and f.severity > Severity.INFO and f.state != "cleared"
    ]
    signal = _strip_signal(history, roots[0] if roots else None)
    latest = None if signal is None else history.latest(signal)
    if signal is None or latest is None:
        return None
    targets = history.targets
    # Measured now or once: a layer that this signal does not apply to (a ReLU has no gradient norm) has no bar.
    _, table = history.tail(signal, 32)
    shown = np.flatnonzero(~np.isnan(latest) | (~np.isnan(table[:, : latest.size])).any(axis=0))
    if not shown.size:
        return None
    values = [float(latest[i]) if math.isfinite(latest[i]) else None for i in shown]
    levels = _levels(values, fraction=CATALOGUE[signal].unit == "fraction")
    rules = {f.rule for f in roots}
    named = _layers_named([*roots, *(f for f in findings if f.explained_by in rules)], targets)
    names = tuple(targets.layers[i] for i in shown)
    sick = tuple(position for position, layer in enumerate(names) if layer in named)
    return LayerStrip(signal, names, tuple(values), levels, sick, _worst(levels, sick))


def _strip_signal(history: History, worst: Finding | None) -> str | None:
    measured = set(history.measured())
    per_layer = [s.name for s in CATALOGUE if s.per == "layer" and s.name in measured]
    for evidence in worst.evidence if worst else ():
        rests_on = [name for name in per_layer if name in evidence.signal and not name.endswith("nonfinite")]
        if rests_on:
            return max(rests_on, key=len)
    return next((name for name in ("grad.norm", "update.ratio", "act.rms") if name in per_layer), None)


def _levels(values: Sequence[float | None], *, fraction: bool) -> tuple[float | None, ...]:
    """0..1 for each value. Sizes on a log scale of one to six decades, so that an even network looks even."""
    if fraction:
        return tuple(None if v is None else min(1.0, max(0.0, v)) for v in values)
    logs = [math.log10(abs(v)) for v in values if v]
    if not logs:
        return tuple(None if v is None else 0.0 for v in values)
    top = max(logs)
    bottom = max(min(logs), top - 6)
    missing = max(0.0, 1 - (top - bottom))
    top, bottom = top + missing / 2, bottom - missing / 2
    return tuple(
        None if v is None else (max(0.0, math.log10(abs(v)) - bottom) / (top - bottom) if v else 0.0) for v in values
    )


def _layers_named(findings: Sequence[Finding], targets: Targets) -> set[str]:
    """The layers that `findings` point at, by their own name or by that of one of their parameters."""
    owner = {name: targets.layers[index] for name, index in zip(targets.params, targets.param_layers, strict=False)}
    return {owner.get(target, target) for finding in findings for target in finding.targets}


def _worst(levels: Sequence[float | None], sick: Sequence[int]) -> int | None:
    """A layer whose value is not finite, else the one farthest from the others, else the largest."""
    candidates = list(sick) or list(range(len(levels)))
    broken = [i for i in candidates if levels[i] is None]
    if broken:
        return broken[0]
    known = sorted(level for level in levels if level is not None)
    middle = known[len(known) // 2]
    if sick:
        return max(candidates, key=lambda i: abs((levels[i] or 0.0) - middle))
    return max(candidates, key=lambda i: levels[i] or 0.0)
