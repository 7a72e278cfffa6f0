"""How right each rule and each diagnosis was in the clinic: the table that ships beside the rulesets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nndoctor.rules.folder import rulesets_folder

TABLE = "clinic.json"


@dataclass(frozen=True, slots=True)
class Record:
    """In how many runs something was rightly and wrongly named.

    Args:
        right: runs in which it was named and planted.
        planted: runs in which it was planted.
        wrong: runs in which it was named and not planted.
    """

    right: int = 0
    planted: int = 0
    wrong: int = 0

    @property
    def precision(self) -> float | None:
        """Of the runs in which it was named, the share in which it was planted; None if it never was named."""
        named = self.right + self.wrong
        return self.right / named if named else None

    @property
    def recall(self) -> float | None:
        """Of the runs in which it was planted, the share in which it was named; None if it never was planted."""
        return self.right / self.planted if self.planted else None


@dataclass(frozen=True, slots=True)
class Row:
    """The record of a rule or a diagnosis.

    Args:
        all: over all cases.
        untuned: over the cases that no rule was tuned on.
        first: runs in which the diagnosis was the first root cause; None for a rule.
        remedied, treated: runs that the doctor's own remedy cured, of those it was tried on.
        steps: from onset to diagnosis, the median and the most; None where it was never named.
    """

    all: Record = Record()
    untuned: Record = Record()
    first: int | None = None
    remedied: int = 0
    treated: int = 0
    steps: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Clinic:
    """What the last full run of the clinic found, over `seeds` seeds of `sick` and `healthy` cases."""

    seeds: int = 0
    sick: int = 0
    healthy: int = 0
    rules: Mapping[str, Row] = field(default_factory=dict)
    diagnoses: Mapping[str, Row] = field(default_factory=dict)


def shipped_clinic() -> Clinic:
    """The table that ships with the rulesets; an empty one where there is none.

    Raises:
        ValueError: the file is no such table.
    """
    path = rulesets_folder() / TABLE
    return parse_clinic(path.read_text(encoding="utf-8")) if path.is_file() else Clinic()


def parse_clinic(text: str) -> Clinic:
    """The table written by ``benchmarks/clinic.py``. Raises ValueError that says what is wrong with it."""
    try:
        plain = json.loads(text)
        rules = {name: _row(row) for name, row in plain["rules"].items()}
        diagnoses = {name: _row(row) for name, row in plain["diagnoses"].items()}
        return Clinic(plain["seeds"], plain["sick"], plain["healthy"], rules, diagnoses)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{TABLE}: expected the summary that benchmarks/clinic.py writes: {error!r}") from error


def _row(plain: Mapping[str, Any]) -> Row:
    remedied, treated = plain.get("remedy", (0, 0))
    steps = plain.get("steps")
    return Row(
        Record(*plain["all"]),
        Record(*plain.get("untuned", ())),
        plain.get("first"),
        remedied,
        treated,
        (int(steps[0]), int(steps[1])) if steps else None,
    )


def described(rule: str, diagnosis: str, clinic: Clinic) -> tuple[str, ...]:
    """The rows of a rule and of its diagnosis in sentences; none where the clinic does not have them."""
    own, shared = clinic.rules.get(rule), clinic.diagnoses.get(diagnosis)
    sentences = []
    if own is not None and own.all != Record():
        sentences.append(f"The rule: {_record(own.all, f'runs with {diagnosis}')}{_untuned(own.untuned)}.")
    if shared is not None and shared.all.planted:
        sentences.append(f"The diagnosis, by all its rules: {_record(shared.all, 'runs')}, first in {shared.first}.")
        if shared.steps is not None:
            sentences.append(f"Steps from onset to diagnosis: {shared.steps[0]} in the median, {shared.steps[1]} at most.")
        if shared.treated:
            sentences.append(f"The doctor's own remedy cured {shared.remedied} of {shared.treated} runs it was tried on.")
    return tuple(sentences)


def _record(record: Record, runs: str) -> str:
    found = f"named in {record.right} of {record.planted} {runs}" if record.planted else "no run has it planted"
    return f"{found}, wrongly in {record.wrong}"


def _untuned(record: Record) -> str:
    return f"; {record.right} of {record.planted} on cases it was not tuned on" if record.planted else ""
