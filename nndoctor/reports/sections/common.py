"""What several sections say in the same way: a finding, its evidence, its fix as a diff."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from nndoctor.findings import Evidence, Finding, Fix, RuleDocs, Severity, format_value
from nndoctor.history import History
from nndoctor.reports.charts import Band, number, quantity, whole_number
from nndoctor.reports.svg import sparkline
from nndoctor.reports.view import RunView, current_value, spelled
from nndoctor.signals import CATALOGUE


class Change(NamedTuple):
    """One setting to change; `before` is empty where the old value is not known."""

    setting: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Remedy:
    """A fix as it is shown: title, the changes, the text that the copy button copies."""

    title: str
    changes: tuple[Change, ...]
    confidence: str
    safety: str
    copied: str


class Reading(NamedTuple):
    """One piece of evidence: where, the value that tells, when it was that, the limit, and the curve around it."""

    signal: str
    help: str
    target: str
    value: str
    when: str
    limit: str
    factor: str
    curve: Markup


@dataclass(frozen=True, slots=True)
class Case:
    """A finding with everything that a section shows of it."""

    finding: Finding
    title: str
    message: str
    tone: str
    since: str
    where: str
    remedies: tuple[Remedy, ...]
    readings: tuple[Reading, ...]
    symptoms: tuple[Finding, ...]
    symptom_targets: int
    docs: RuleDocs | None
    others: tuple[tuple[str, str], ...]
    """Other explanations there could have been: ``ruled out`` and ``not ruled out``, with their names."""
    silence: str
    """The override that acknowledges the finding, for a ruleset of one's own."""


def case(view: RunView, finding: Finding) -> Case:
    symptoms = view.symptoms_of(finding)
    return Case(
        finding=finding,
        title=spelled(finding.diagnosis),
        message=sentence(finding),
        tone=finding.severity.label,
        since=since(finding),
        where=where(finding),
        remedies=tuple(remedy(fix, view.history) for fix in finding.fixes),
        readings=tuple(reading(evidence, finding.first_step) for evidence in told_first(finding.evidence)),
        symptoms=symptoms,
        symptom_targets=len({target for symptom in symptoms for target in symptom.targets}),
        docs=view.rule_docs.get(finding.rule),
        others=tuple(
            (label, _some(causes))
            for label, causes in (("ruled out", finding.ruled_out), ("not ruled out", finding.not_ruled_out))
            if causes
        ),
        silence=silence(finding),
    )


def silence(finding: Finding) -> str:
    """One line of YAML for ``overrides:`` that acknowledges the finding, where it is."""
    named = [name for name in finding.targets[:3] if len(finding.targets) <= 3]
    where = f", layers: {named}".replace("'", '"') if named else ""
    return f'{{rules: [{finding.rule}]{where}, suppress: true, reason: "..."}}'


def _some(names: Sequence[str], shown: int = 8) -> str:
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")


def sentence(finding: Finding) -> str:
    """The finding's message with a capital at its start, unless it starts with a name."""
    first = finding.message.partition(" ")[0]
    named = not first.isalpha() or any(first in (target, target.partition(".")[0]) for target in finding.targets)
    return finding.message if named else finding.message[:1].upper() + finding.message[1:]


def told_first(evidence: Sequence[Evidence]) -> list[Evidence]:
    """Evidence with a limit before evidence that only gives the picture; not that a rule waited for some steps."""
    return sorted((item for item in evidence if item.signal != "step"), key=lambda item: item.threshold is None)


def remedy(fix: Fix, history: History) -> Remedy:
    # a word that a fix sets is for programs; to people the title says it
    changes = [_change(history, setting, value) for setting, value in fix.set.items() if not isinstance(value, str)]
    if fix.call:
        changes.append(Change("call", "", f"{fix.call} {fix.place}".strip()))
    copied = fix.call or ", ".join(f"{change.setting}={change.after}" for change in changes) or fix.title
    return Remedy(fix.title, tuple(changes), fix.confidence, fix.safety, copied)


def _change(history: History, setting: str, value: float) -> Change:
    """Old and new value in one notation: ``3e-3`` beside ``2e-4``, not ``0.003``."""
    now, after = current_value(history, setting), format_value(value)
    if now is None:
        return Change(setting, "", after)
    before = format_value(now)
    if "e-" in before + after:
        before, after = scientific(now), scientific(value)
    return Change(setting, before, after)


def scientific(value: float) -> str:
    """``3e-3``; numbers of 0.01 and more, and zero, stay as they are."""
    if value == 0 or abs(value) >= 0.01:
        return format_value(value)
    mantissa, exponent = f"{value:.5e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def reading(evidence: Evidence, first_step: int) -> Reading:
    known = CATALOGUE[evidence.signal].help if evidence.signal in CATALOGUE else ""
    limit = ""
    if evidence.threshold is not None:
        limit = f"{evidence.comparison or 'limit'} {quantity(evidence.threshold, evidence.unit)}"
    label = f"{evidence.signal} around step {first_step}"
    steps = evidence.steps if len(evidence.steps) == len(evidence.values) else None
    mark = first_step if steps else None
    curve = sparkline(evidence.values, steps, threshold=limit_of_curve(evidence), mark=mark, label=label) if evidence.values else Markup()
    value, when = telling(evidence)
    return Reading(evidence.signal, known, evidence.target or "", value, when, limit, factor(evidence), curve)


_BEYOND = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


def limit_of_curve(evidence: Evidence) -> float | None:
    """The limit, where the curve is of what it limits.

    The curve of ``count(loss > 1, 8)`` is that of the loss: where the value is beyond the limit and no point of the curve
    is, they are not of one kind, and the limit is not drawn over it.
    """
    limit, beyond = evidence.threshold, _BEYOND.get(evidence.comparison)
    if limit is None or beyond is None or not beyond(evidence.value, limit):
        return limit
    return limit if any(beyond(value, limit) for value in evidence.values) else None


def telling(evidence: Evidence) -> tuple[str, str]:
    """The value that makes the case, and when it was so.

    The newest value, unless that is back within the limit: then the one that was furthest beyond it.
    """
    newest = quantity(evidence.value, evidence.unit)
    beyond = _BEYOND.get(evidence.comparison)
    if beyond is None or evidence.threshold is None or beyond(evidence.value, evidence.threshold) or not evidence.values:
        return newest, ""
    furthest = max if evidence.comparison.startswith(">") else min
    known = [(value, step) for value, step in zip(evidence.values, evidence.steps, strict=False) if value == value]
    value, step = furthest(known, default=(evidence.value, 0))
    if not beyond(value, evidence.threshold):
        return newest, ""
    return quantity(value, evidence.unit), f"at step {whole_number(step)}, now {newest}"


def factor(evidence: Evidence) -> str:
    """How far beyond its limit a value is, ``31 times`` or ``31 times smaller``; empty where it is not beyond it, or not by much."""
    value, limit = evidence.value, evidence.threshold
    if limit is None or not (math.isfinite(value) and math.isfinite(limit)) or value * limit <= 0:
        return ""
    beyond = _BEYOND.get(evidence.comparison)
    if beyond is not None and not beyond(value, limit):
        return ""
    ratio = max(value / limit, limit / value)
    if ratio < 1.5:
        return ""
    return f"{number(ratio)} times smaller" if abs(value) < abs(limit) else f"{number(ratio)} times"


def since(finding: Finding) -> str:
    first, last = whole_number(finding.first_step), whole_number(finding.last_step)
    if finding.state == "cleared":
        return f"steps {first} to {last}, cleared since" if first != last else f"at step {first}, cleared since"
    return f"since step {first}"


def where(finding: Finding, shown: int = 1) -> str:
    """``the whole run``, ``layer3.conv2``, ``layer3.conv2 and 4 more``."""
    if not finding.targets:
        return "the whole run"
    names = ", ".join(finding.targets[:shown])
    rest = len(finding.targets) - shown
    return f"{names} and {rest} more" if rest > 0 else names


def bands(view: RunView) -> tuple[Band, ...]:
    """The stretches of steps that findings above info held; root causes where there are any."""
    chosen = view.diagnosis.root_causes
    return tuple(
        Band(spelled(f.diagnosis), f.first_step, f.last_step, f.severity.label, str(number))
        for number, f in enumerate(chosen[:8], start=1)
    )


def tone(severity: Severity | None) -> str:
    return "ok" if severity is None else severity.label
