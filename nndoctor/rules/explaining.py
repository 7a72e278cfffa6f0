"""Which finding explains which: explicit links from cause to symptom, near in time and on the same target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nndoctor.findings import Finding, Severity, ordered
from nndoctor.rules.ruleset import Link
from nndoctor.rules.schema import Duration
from nndoctor.signals import Axis, Targets


def explained(
    findings: Sequence[Finding],
    links: Sequence[Link],
    targets: Targets,
    steps: Callable[[Duration], float],
) -> Mapping[str, str]:
    """Rule of each finding that is not a root cause, to the rule of its root cause.

    A chain of causes collapses to its topmost one. Of several rules that name the same diagnosis, the
    strongest speaks and the others are folded under it.
    """
    by_rule = {f.rule: f for f in findings}
    causes = _direct_causes(by_rule, links, targets, steps)
    roots = [f for f in findings if f.rule not in causes and f.suppressed is None]
    for finding in ordered(roots):
        head = next(f for f in ordered(roots) if f.diagnosis == finding.diagnosis)
        if head.rule != finding.rule:
            causes[finding.rule] = head.rule
    return {rule: _topmost(rule, causes) for rule in causes}


def _direct_causes(
    by_rule: Mapping[str, Finding], links: Sequence[Link], targets: Targets, steps: Callable[[Duration], float]
) -> dict[str, str]:
    """The strongest cause of each symptom."""
    candidates: dict[str, list[Finding]] = {}
    for link in links:
        for cause in (by_rule[name] for name in link.causes if name in by_rule):
            for symptom in (by_rule[name] for name in link.symptoms if name in by_rule):
                if _explains(cause, symptom, link, targets, steps):
                    candidates.setdefault(symptom.rule, []).append(cause)
    return {rule: ordered(found)[0].rule for rule, found in candidates.items()}


def _explains(
    cause: Finding, symptom: Finding, link: Link, targets: Targets, steps: Callable[[Duration], float]
) -> bool:
    if cause.suppressed is not None or (cause.severity == Severity.INFO and symptom.severity > Severity.INFO):
        return False  # what does not speak up must not hide what does
    reach = cause.last_step + steps(link.within)
    in_time = cause.first_step <= symptom.first_step + steps(link.lead) and symptom.first_step <= reach
    outlived = cause.state == "cleared" and symptom.last_step > reach
    return in_time and not outlived and _same_place(cause, symptom, link.on, targets)


def _same_place(cause: Finding, symptom: Finding, on: Axis, targets: Targets) -> bool:
    """Whether the cause is at every place of the symptom."""
    if on == "run":
        return True
    of_cause, of_symptom = _places(cause, on, targets), _places(symptom, on, targets)
    return bool(of_symptom) and of_symptom <= of_cause


def _places(finding: Finding, on: Axis, targets: Targets) -> set[str]:
    if on != "layer":
        return set(finding.targets)
    layers = set(targets.layers)
    owner = {p: targets.layers[i] for p, i in zip(targets.params, targets.param_layers, strict=False) if i >= 0}
    return {name if name in layers else owner.get(name, name) for name in finding.targets}


def _topmost(rule: str, causes: Mapping[str, str]) -> str:
    while rule in causes:
        rule = causes[rule]
    return rule
