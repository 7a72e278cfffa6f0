"""``nndoctor rules new``: a rule file to begin with, its tests written down from recorded runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nndoctor.cli.complete import complete_run
from nndoctor.cli.output import UsageError, say, say_json, tell
from nndoctor.cli.settings import run_root

if TYPE_CHECKING:
    from nndoctor.rules.draft import WrittenTest
    from nndoctor.rules.expression import Expression
    from nndoctor.rules.trial import Course

SEVERITIES = ("critical", "error", "warning", "info")
MOST_TARGETS = 3
"""Layers or parameters that a written-down test names: enough to see where a rule speaks and where not."""


def new(
    id: Annotated[str, typer.Argument(metavar="ID", help="Names the disease in kebab-case, as in dead-relu.")],
    when: Annotated[str, typer.Option("--when", metavar="EXPRESSION", help="The condition; try it first: nndoctor rules try.")] = "loss > 10",
    sick: Annotated[
        str | None, typer.Option("--sick", metavar="RUN", help="A run in which it has to fire: written down as a test.", autocompletion=complete_run)
    ] = None,
    healthy: Annotated[
        str | None, typer.Option("--healthy", metavar="RUN", help="A run in which it has to stay silent: written down as a test.", autocompletion=complete_run)
    ] = None,
    severity: Annotated[str, typer.Option(metavar="|".join(SEVERITIES), help="How bad it is.")] = "warning",
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Where to write it.  [default: ID.yaml]")] = None,
    json: Annotated[bool, typer.Option("--json", help="What was written, as JSON.")] = False,
) -> None:
    """Write the file of a new rule, with tests that pass.

    Every section is there, to be filled in.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", id) or len(id) > 80:
        plain = re.sub(r"[^a-z0-9]+", "-", id.lower()).strip("-")
        raise UsageError(f"{id!r} is no name for a rule: lower-case words and digits with hyphens, as in {plain or 'dead-relu'}")
    if severity not in SEVERITIES:
        close = get_close_matches(severity, SEVERITIES, n=1)
        raise UsageError(f"--severity: expected one of {', '.join(SEVERITIES)}, got {severity!r}" + (f"; did you mean {close[0]}?" if close else ""))
    path = out if out is not None else Path(f"{id}.yaml")
    if path.exists():
        raise UsageError(f"{path} exists; choose another file with -o, or remove it")
    text, fired = _drafted(id, when, severity, sick, healthy)
    path.write_text(text, encoding="utf-8")
    for run, should, does in fired:
        if should != does:
            tell(f"warning: the rule {'stays silent' if should else 'fires'} in {_then(run, when, run in (sick, healthy))}")
    if json:
        say_json({"file": str(path), "id": id, "tests": [{"run": run, "fires": does} for run, _, does in fired]})
        return
    say(f"{path}: fill in what is marked TODO, then:")
    say(f"  nndoctor rules check {path}")
    say(f"  nndoctor rules test {path}")
    say(f"  nndoctor rules lint {path}")
    say(f"  nndoctor rules backtest {path}")
    say(f"and train with it, beside those of core: nndoctor run --rules {path} -- train.py")
    say(f"Wrote rule {id} with {len(fired)} tests.")


def _then(test: str, when: str, is_run: bool) -> str:
    """Where a rule does not do what it should, and what to do about it."""
    if is_run:
        return f"{test} as written down; look at it with: nndoctor rules try {when!r} {test}"
    return f"the drafted test {test!r}; write a series into it that shows the disease, or give a recorded run by --sick"


def _drafted(id: str, when: str, severity: str, sick: str | None, healthy: str | None) -> tuple[str, list[tuple[str, bool, bool]]]:
    """The text of the file, and for each test its name, whether it should fire, and whether it does."""
    from nndoctor.packaged import full_catalogue
    from nndoctor.rules import load_rulesets
    from nndoctor.rules.draft import draft, message_for
    from nndoctor.rules.expression import ExpressionError, Names, parse

    catalogue = full_catalogue()
    core = load_rulesets(("core",), catalogue)
    if any(rule.id == id for rule in core.rules):
        raise UsageError(f"core has a rule {id} already: choose another name, or change that one with overrides (nndoctor rules show {id})")
    records = core.records
    try:
        expression = parse(when, Names(catalogue, records))
        if not expression.condition:
            raise ExpressionError("expected a condition, got a number", expression.offset, expression.length, f"compare it: {when} > ...")
    except ExpressionError as error:
        from nndoctor.cli.rules_try import mistake

        raise UsageError("--when: " + mistake(when, error)) from error
    extends = ["core"] if any(part.operation == "record" for part in expression.walk()) else []
    tests = [_from_run(run, should, expression, catalogue, records) if run else _made_up(should, expression, catalogue) for run, should in ((sick, True), (healthy, False))]
    outcomes = []
    for index, (test, run, should) in enumerate(zip(tests, (sick, healthy), (True, False), strict=True)):
        step = _fires_at(id, when, severity, extends, test, expression, catalogue)
        expect = f"rule: {id}, never: true" if step is None else f"rule: {id}, fires_in: [{max(1, step - 5)}, {step + 20}]"
        tests[index] = replace(test, expect=expect)
        outcomes.append((run or test.name, should, step is not None))
    text = draft(id, when, expression.axis, severity=severity, extends=["core"], tests=tests, message=message_for(expression, when))
    return text, outcomes


def _fires_at(id: str, when: str, severity: str, extends: Sequence[str], test: WrittenTest, expression: Expression, catalogue: Any) -> int | None:
    """The step at which the rule as drafted fires on a written-down run; None if it never does."""
    from nndoctor.rules import load_text, run_tests
    from nndoctor.rules.draft import draft, message_for

    probe = replace(test, expect=f"rule: {id}, never: true")
    text = draft(id, when, expression.axis, severity=severity, extends=extends, tests=[probe], message=message_for(expression, when))
    results = [result for result in run_tests(load_text(text, catalogue)) if result.name == test.name]
    found = [finding for finding in results[0].findings if finding.rule == id]
    return found[0].first_step if found else None


def _from_run(run: str, should: bool, expression: Expression, catalogue: Any, records: Any) -> WrittenTest:
    from nndoctor.record import RecordReader, find_run
    from nndoctor.rules.draft import WrittenTest, written
    from nndoctor.rules.trial import course

    folder = find_run(run, run_root())
    series: dict[str, Any] = {}
    layers: tuple[str, ...] = ()
    with RecordReader(folder) as reader:
        for name in expression.signals():
            found = course(name, reader.frames(catalogue=catalogue), reader.targets, catalogue, records)
            if not found.known:
                if should:
                    raise UsageError(f"{name} was not measured in {folder.name}, so that the rule cannot fire there")
                continue
            if not found.targets:
                series[name] = written(found, 0)
                continue
            columns = _telling(found)
            series[name] = {found.targets[column]: written(found, column) for column in columns}
            if found.axis == "layer":
                layers = tuple(dict.fromkeys((*layers, *(found.targets[column] for column in columns))))
    verb = "as in" if should else "stays silent in"
    return WrittenTest(f"{verb} the run {folder.name}", series, "", layers)


def _telling(found: Course) -> list[int]:
    """A few targets that show the range: the largest, the median and the smallest by their newest value."""
    import numpy as np

    mean = found.whole.mean
    newest = [float(column[np.isfinite(column)][-1]) if np.isfinite(column).any() else float("nan") for column in mean.T]
    known = sorted((index for index, value in enumerate(newest) if value == value), key=lambda index: newest[index])
    if len(known) <= MOST_TARGETS:
        return sorted(known)
    return sorted({known[0], known[len(known) // 2], known[-1]})


def _made_up(should: bool, expression: Expression, catalogue: Any) -> WrittenTest:
    """A test with a value beyond the first limit that the condition names, or well within it."""
    from nndoctor.rules.draft import WrittenTest

    limits = [part for part in expression.walk() if part.operation == "compare" and part.arguments[1].operation == "number"]
    limit = limits[0].arguments[1].number if limits else 1.0
    beyond = limits[0].name in (">", ">=") if limits else True
    far, near = limit + abs(limit) + 1, limit - abs(limit) - 1
    value = (far if beyond else near) if should else (near if beyond else far)
    if value < 0 <= limit:
        value = 0.0 if limit > 0 else value
    of_layers = any(catalogue[name].per in ("layer", "param") for name in expression.signals())
    series = dict.fromkeys(expression.signals(), f"{value:.3g} x400")
    return WrittenTest("beyond the limit" if should else "well within the limit", series, "", ("a", "b") if of_layers else ())
