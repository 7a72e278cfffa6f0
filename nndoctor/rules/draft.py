"""The first version of a rule file: a condition, every section to fill, and tests, written down from a run if there is one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndoctor.rules.expression import Expression
from nndoctor.rules.trial import Course

MOST_PIECES = 12
"""Pieces of a written-down series: enough for its shape, few enough to be read."""

TOLERANCE = 0.02
"""Of the span of a series: by how much a piece may leave it."""


@dataclass(frozen=True, slots=True)
class WrittenTest:
    """A test for the file: its name, its series in shorthand, the layers that it names, and what it expects."""

    name: str
    series: Mapping[str, str | Mapping[str, str]]
    expect: str
    layers: tuple[str, ...] = ()


def draft(id: str, when: str, course_axis: str, *, severity: str, extends: Sequence[str], tests: Sequence[WrittenTest], message: str) -> str:
    """The text of a ruleset file with one rule, complete but for what only its author knows (marked with TODO)."""
    lines = [
        "version: 1",
        f"name: {id}",
        f"extends: [{', '.join(extends)}]  # judge by these rules, too" if extends else "extends: []",
        "rules:",
        f"  - id: {id}",
        "    title: TODO what to do, in a few words",
        f"    severity: {severity}",
        f"    scope: {course_axis}",
        "    # TODO where the numbers come from: a paper, or the runs that they were read off",
        f"    when: {_quoted(when)}",
        "    for: 20 steps",
        f"    message: {_quoted(message)}",
        "    # fixes:",
        "    #   - title: TODO the remedy that helps most often, with its value if one can be computed",
        "    #     set: {lr: nice(lr / 10)}",
        "    #     confidence: medium",
        "    #     safety: manual",
        "    docs:",
        "      checks: TODO what it looks at, and from when on it speaks.",
        "      why: TODO what happens to the training if nothing is done.",
        "      causes:",
        "        - TODO the likeliest cause first.",
        "      confirm: TODO one cheap experiment that tells it from everything else.",
        "      known_problems:",
        "        - TODO a healthy run in which it could speak all the same.",
        "      references:",
        '        - "TODO author year, title: https://..."',
        "",
        "tests:",
    ]
    for test in tests:
        lines += _test_lines(test)
    return "\n".join(lines) + "\n"


def _test_lines(test: WrittenTest) -> list[str]:
    lines = [f"  - name: {_quoted(test.name)}"]
    if test.layers:
        lines.append(f"    layers: [{', '.join(_quoted(name) for name in test.layers)}]")
    lines.append("    series:")
    for name, values in test.series.items():
        if isinstance(values, str):
            lines.append(f"      {name}: {values}")
        else:
            lines.append(f"      {name}:")
            lines += [f"        {_quoted(target)}: {text}" for target, text in values.items()]
    lines.append(f"    expect: [{{{test.expect}}}]")
    return lines


def _quoted(text: str) -> str:
    """`text` as a YAML value; in double quotes where plain text would be read as something else."""
    plain = text and all(c.isalnum() or c in " ._/*()<>+=-" for c in text) and text[0].isalpha() and text == text.strip()
    return text if plain and text.lower() not in ("null", "true", "false", "yes", "no", "on", "off") else json.dumps(text, ensure_ascii=False)


def message_for(expression: Expression, when: str) -> str:
    """A message with the value of the first comparison in it."""
    place = {"layer": "{layer}: ", "param": "{param}: ", "group": "{group}: ", "rank": "{rank}: "}.get(expression.axis, "")
    for part in expression.walk():
        if part.operation == "compare":
            left = part.arguments[0]
            text = when[left.offset : left.offset + left.length].strip()
            if text and not text.replace(".", "").isdigit():
                return f"{place}{text} is {{{text}:.3g}}"
    return f"{place}TODO say it with its values, as in {{loss:.3g}}"


def written(course: Course, column: int) -> str:
    """One column of a recorded series in the shorthand of rule tests, from step 1 on; gaps of sampling are filled."""
    values = course.whole.mean[:, column].astype(float)
    keep = np.isfinite(values)
    if not keep.any():
        return f"_ x{max(1, course.last_step)}"
    steps, values = course.whole.steps[keep].astype(float), values[keep]
    knots = simplified(steps, values)
    pieces = []
    if steps[0] > 1:
        pieces.append(f"_ x{int(steps[0]) - 1}")
    for left, right in itertools.pairwise(knots):
        length = int(steps[right] - steps[left])
        a, b = _short(values[left]), _short(values[right])
        pieces.append(f"{a} x{length}" if a == b else f"{a}..{b} x{length}")
    rest = course.last_step - int(steps[knots[-1]]) + 1
    pieces.append(f"{_short(values[knots[-1]])} x{max(1, rest)}")
    return " ".join(pieces)


def simplified(steps: NDArray[np.float64], values: NDArray[np.float64]) -> list[int]:
    """Indices of the few samples between which straight lines stay close to the series (Douglas & Peucker 1973)."""
    span = float(values.max() - values.min())
    kept = {0, len(values) - 1}
    while len(kept) <= MOST_PIECES:
        order = sorted(kept)
        worst, at = TOLERANCE * span, -1
        for left, right in itertools.pairwise(order):
            inside = slice(left + 1, right)
            line = np.interp(steps[inside], steps[[left, right]], values[[left, right]])
            distance = np.abs(values[inside] - line)
            if distance.size and float(distance.max()) > worst:
                worst, at = float(distance.max()), left + 1 + int(distance.argmax())
        if at < 0:
            break
        kept.add(at)
    return sorted(kept)


def _short(value: float) -> str:
    return f"{value:.3g}"
