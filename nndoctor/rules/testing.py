"""The tests inside rulesets: written-down runs, and what the rules must say about them.

A test runs the rules of its own file and those that its expectations name, so that what one file
tests does not depend on which other files are loaded; ``rules: all`` runs every rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nndoctor.findings import Finding, Severity, format_value
from nndoctor.history import frames_from_series
from nndoctor.rules.engine import Judge
from nndoctor.rules.ruleset import Ruleset, RuleTest
from nndoctor.rules.schema import ExpectModel
from nndoctor.rules.shorthand import parse_series
from nndoctor.signals import Axis, Frame, Targets

DENSE_STEPS = 50  # as in a real run, the first steps are all sampled


@dataclass(frozen=True, slots=True)
class TestResult:
    """What became of one test.

    Args:
        name, source: of the test.
        failures: each expectation that was not met: what was expected, and what happened.
        findings: what the rules said, in the order in which they would be shown.
        steps: length of the written-down run.
    """

    __test__ = False

    name: str
    source: str
    failures: tuple[str, ...]
    findings: tuple[Finding, ...]
    steps: int

    @property
    def passed(self) -> bool:
        return not self.failures

    def render(self) -> str:
        """The result for a person: expected against got, then all that fired."""
        if self.passed:
            return f"ok    {self.source} {self.name}"
        lines = [f"FAIL  {self.source} {self.name}"]
        for failure in self.failures:
            expected, _, got = failure.partition("\n")
            lines += [f"    - {expected}", f"    + {got}"]
        lines.append(f"    what fired in {self.steps} steps:")
        lines += [f"      {describe(finding)}" for finding in self.findings] or ["      nothing"]
        return "\n".join(lines)


def run_tests(ruleset: Ruleset) -> list[TestResult]:
    """Run every test that the ruleset's files hold."""
    return [run_test(ruleset, test) for test in ruleset.tests]


def run_test(ruleset: Ruleset, test: RuleTest) -> TestResult:
    """Judge the written-down run of one test and compare with what it expects."""
    named = {name for e in test.model.expect for name in (e.rule, e.explained_by) if name is not None}
    tested = ruleset if test.model.rules == "all" else ruleset.only(frozenset({*test.rules, *named}))
    targets = _targets(test, ruleset)
    judge = Judge(tested, targets, ruleset.catalogue, planned_steps=test.model.planned_steps)
    fired: dict[tuple[str, str], int] = {}
    for frame in _frames(test, ruleset, targets):
        if judge.feed(frame):
            for finding in judge.findings():
                for target in finding.targets or ("",):
                    fired.setdefault((finding.rule, target), frame.step)
    findings = judge.findings()
    unexamined = {n.rule for n in judge.not_examined()}
    failures: list[str] = []
    for expect in test.model.expect:
        failures += _failures(expect, findings, fired, unexamined, test)
    return TestResult(test.name, test.source, tuple(failures), findings, judge.history.step)


def describe(finding: Finding) -> str:
    """One finding in one line."""
    where = f" at {', '.join(finding.targets[:4])}{', ...' * (len(finding.targets) > 4)}" if finding.targets else ""
    when = f"steps {finding.first_step} to {finding.last_step}, {finding.state}"
    why = f", explained by {finding.explained_by}" if finding.explained_by else ""
    values = "; ".join(f"{k}={format_value(v)}" for fix in finding.fixes for k, v in fix.set.items())
    return f"{finding.rule} ({finding.severity.label}){where}: {when}{why}{f', set {values}' if values else ''}"


def _targets(test: RuleTest, ruleset: Ruleset) -> Targets:
    """The targets that the test lists, with those that its series name."""
    found: dict[Axis, list[str]] = {
        "layer": list(test.model.layers or ()), "param": list(test.model.params or ()),
        "group": list(test.model.groups or ()), "rank": [],
    }  # fmt: skip
    for name, values in test.model.series.items():
        axis = ruleset.catalogue[name].per
        if isinstance(values, Mapping) and axis != "run":
            found[axis] += [t for t in values if t != "default" and t not in found[axis]]
    layers = found["layer"]
    for param in found["param"]:
        owner = param.rpartition(".")[0]
        if owner and owner not in layers and test.model.layers is None:
            layers.append(owner)
    index = {name: i for i, name in enumerate(layers)}
    return Targets(
        layers=tuple(layers),
        layer_kinds=("Linear",) * len(layers),
        layer_depths=tuple(range(len(layers))),
        params=tuple(found["param"]),
        param_layers=tuple(index.get(p.rpartition(".")[0], -1) for p in found["param"]),
        param_shapes=((8, 8),) * len(found["param"]),
        groups=tuple(found["group"]) or ("sgd[0]",),
        ranks=tuple(found["rank"]) or ("0",),
    )


def _frames(test: RuleTest, ruleset: Ruleset, targets: Targets) -> Iterator[Frame]:
    model = test.model
    series: dict[str, object] = {}
    for name, values in model.series.items():
        if isinstance(values, Mapping):
            # a target that is not listed has no array to stand in: the default goes to the listed ones only
            series[name] = {target: _stretched(text) for target, text in values.items()}
        else:
            series[name] = _stretched(values)
    longest = max((_length(values) for values in series.values()), default=0)
    series = {name: _filled(values, longest) for name, values in series.items()}
    frames = frames_from_series(
        series, targets, ruleset.catalogue, epoch_steps=model.epoch_steps, step_seconds=model.step_seconds
    )
    if model.sampled is None:
        return frames
    return map(partial(_sampled, every=model.sampled, ruleset=ruleset), frames)


def _sampled(frame: Frame, every: int, ruleset: Ruleset) -> Frame:
    """The frame as a run would measure it that samples its layers and parameters every so many steps."""
    if frame.step <= DENSE_STEPS or frame.step % every == 0:
        return frame
    cheap = {name: v for name, v in frame.values.items() if ruleset.catalogue[name].per in ("run", "group")}
    return replace(frame, values=cheap)


def _stretched(text: float | str) -> NDArray[np.float64] | float:
    """The numbers of a series; a single number without a length holds for the whole run."""
    numbers = parse_series(text)
    alone = isinstance(text, (int, float)) or "x" not in text
    return float(numbers[0]) if alone and len(numbers) == 1 else numbers


def _length(values: object) -> int:
    if isinstance(values, Mapping):
        return max((_length(v) for v in values.values()), default=0)
    return len(values) if isinstance(values, np.ndarray) else 1


def _filled(values: object, length: int) -> object:
    if isinstance(values, Mapping):
        return {target: _filled(v, length) for target, v in values.items()}
    return values if isinstance(values, np.ndarray) else np.full(length, values)


def _failures(
    expect: ExpectModel,
    findings: tuple[Finding, ...],
    fired: Mapping[tuple[str, str], int],
    unexamined: set[str],
    test: RuleTest,
) -> Iterator[str]:
    """Each way in which the expectation is not met: ``expected\\ngot``."""
    if expect.any is not None:
        for finding in findings:
            if finding.severity > Severity.INFO:
                yield f"expected no finding above info\n{describe(finding)}"
        return
    name = expect.rule
    found = next((f for f in findings if f.rule == name), None)
    if expect.not_examined and name not in unexamined:
        yield f"expected {name} not to be examined\nit was"
    if expect.never:
        if found is not None:
            yield f"expected {name} never to fire\n{describe(found)}"
        return
    if expect.not_examined:
        return
    if found is None:
        yield f"expected {name} to fire\nit never did{' and was not examined' if name in unexamined else ''}"
        return
    yield from _wrong(expect, found, fired)


def _wrong(expect: ExpectModel, found: Finding, fired: Mapping[tuple[str, str], int]) -> Iterator[str]:
    wanted = expect.targets or expect.layers
    if expect.fires_in is not None:
        first, last = expect.fires_in
        for target in wanted or [""]:
            step = fired.get((found.rule, target), None if target else found.first_step)
            if step is not None and not first <= step <= last:
                yield f"expected {found.rule} to fire {f'at {target} ' if target else ''}in steps {first} to {last}\nit fired at step {step}"
    if wanted is not None and set(wanted) != set(found.targets):
        yield f"expected {found.rule} at {', '.join(sorted(wanted))}\nit fired at {', '.join(found.targets) or 'the run as a whole'}"
    if expect.root is not None and expect.root != (found.explained_by is None):
        got = f"it is explained by {found.explained_by}" if found.explained_by else "it is a root cause"
        yield f"expected {found.rule} {'' if expect.root else 'not '}to be a root cause\n{got}"
    if expect.explained_by is not None and expect.explained_by != found.explained_by:
        yield f"expected {found.rule} to be explained by {expect.explained_by}\nit is explained by {found.explained_by or 'nothing'}"
    plain: dict[str, tuple[object, object]] = {
        "state": (expect.state, found.state),
        "severity": (expect.severity, found.severity.label),
    }
    for what, (wish, got_value) in plain.items():
        if wish is not None and wish != got_value:
            yield f"expected the {what} of {found.rule} to be {wish}\nit is {got_value}"
    if expect.message is not None and expect.message not in found.message:
        yield f"expected '{expect.message}' in the message of {found.rule}\nit says: {found.message}"
    for key, value in (expect.fix or {}).items():
        offers = [fix.set[key] for fix in found.fixes if key in fix.set]
        if not any(_same(offer, value) for offer in offers):
            got = ", ".join(format_value(o) for o in offers) or "nothing"
            shown = format_value(value) if isinstance(value, (float, str)) else str(value)
            yield f"expected {found.rule} to set {key}={shown}\nit sets {got}"


def _same(offer: float | str, wanted: float | bool | str) -> bool:
    if isinstance(wanted, bool) or isinstance(offer, str) or isinstance(wanted, str):
        return str(offer) == str(wanted)
    return abs(offer - wanted) <= 1e-3 * abs(wanted)
