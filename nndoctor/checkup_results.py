"""What a checkup says: one record per examination, and all of them together.

A leaf module of plain records, without torch: the table, JSON and the exit code are made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from nndoctor.findings import Fix, describe_fix

ExaminationVerdict: TypeAlias = Literal["passed", "failed", "warning", "not examined"]


@dataclass(frozen=True, slots=True)
class Examination:
    """One thing that was examined before the run, and what came out.

    Args:
        name: what was examined (``one batch can be overfitted``).
        verdict: ``passed``, ``warning`` (likely wrong, or a limit), ``failed``, or ``not examined``.
        diagnosis: name of the catalogue entry that it supports; None where it passed or no entry fits.
        message: one sentence with the numbers in it; for ``not examined`` the reason.
        values: the numbers it rests on.
        targets: module or parameter names.
        fix: what to change, with computed values; None where there is nothing to change.
        seconds: how long it took.

    Examples:
        >>> Examination("it runs", "passed", message="forward and backward in 26 ms").diagnosis is None
        True
    """

    name: str
    verdict: ExaminationVerdict
    diagnosis: str | None = None
    message: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    fix: Fix | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Checkup:
    """Everything that ``nndoctor.checkup`` found out.

    Args:
        examinations: in the order in which they were made.
        seconds: how long all of it took.
        facts: what was examined: model, parameters, batch, loss, optimizer, device.

    Examples:
        >>> masks = Examination("no position sees later ones", "failed", diagnosis="attention-mask-leak", message="depends on 23 later ones")
        >>> checkup = Checkup((Examination("it runs", "passed"), masks), seconds=6.5)
        >>> checkup.passed, checkup.exit_code, checkup.diagnoses
        (False, 1, ('attention-mask-leak',))
        >>> checkup["it runs"].verdict
        'passed'
    """

    examinations: tuple[Examination, ...] = ()
    seconds: float = 0.0
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether nothing failed; warnings and what was not examined do not count."""
        return not self.failures

    @property
    def failures(self) -> tuple[Examination, ...]:
        """What failed, in the order in which it was examined."""
        return tuple(e for e in self.examinations if e.verdict == "failed")

    @property
    def warnings(self) -> tuple[Examination, ...]:
        """What is likely wrong, or near a limit, in the order in which it was examined."""
        return tuple(e for e in self.examinations if e.verdict == "warning")

    @property
    def diagnoses(self) -> tuple[str, ...]:
        """Catalogue entries that failed examinations name, then those of warnings; each once."""
        found = (*self.failures, *self.warnings)
        return tuple(dict.fromkeys(e.diagnosis for e in found if e.diagnosis is not None))

    @property
    def exit_code(self) -> int:
        """0 where nothing failed, 1 otherwise."""
        return 0 if self.passed else 1

    @property
    def verdict(self) -> str:
        """One sentence: how many examinations, what they found, and what to change."""
        return _verdict(self)

    def __getitem__(self, name: str) -> Examination:
        """The examination called `name`, the worst where it said several things.

        Raises:
            KeyError: none is called so; those there are are listed.
        """
        order = ("failed", "warning", "passed", "not examined")
        found = sorted((e for e in self.examinations if e.name == name), key=lambda e: order.index(e.verdict))
        if not found:
            raise KeyError(f"no examination {name!r}; there are {', '.join(dict.fromkeys(e.name for e in self.examinations))}")
        return found[0]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values; ``nndoctor run --checkup-json FILE`` writes it."""
        return {
            "verdict": self.verdict,
            "passed": self.passed,
            "diagnoses": list(self.diagnoses),
            "seconds": self.seconds,
            "facts": dict(self.facts),
            "examinations": [_as_dict(e) for e in self.examinations],
        }

    def __str__(self) -> str:
        """One line per examination and the verdict; ``nndoctor.reports.checkup_table`` makes a table of it."""
        lines = [f"{e.verdict:12}  {e.name}: {e.message}" for e in self.examinations]
        return "\n".join([*lines, self.verdict])


def _as_dict(examination: Examination) -> dict[str, Any]:
    data = asdict(examination)
    data["values"] = dict(examination.values)
    data["targets"] = list(examination.targets)
    return data


def _verdict(checkup: Checkup) -> str:
    done = [e for e in checkup.examinations if e.verdict != "not examined"]
    skipped = len(checkup.examinations) - len(done)
    counted = f"{len(done)} examination{'s' * (len(done) != 1)} in {checkup.seconds:.1f} s"
    rest = f" ({skipped} not made)" if skipped else ""
    if not checkup.failures and not checkup.warnings:
        return f"No problems found: {counted}{rest}."
    parts = [f"{len(found)} {what}" for found, what in ((checkup.failures, "failed"), (checkup.warnings, "to look at")) if found]
    first = (*checkup.failures, *checkup.warnings)[0]
    names = ", ".join(checkup.diagnoses) or first.name
    remedy = f" -> {describe_fix(first.fix)}" if first.fix is not None else ""
    return f"{counted}{rest}, {' and '.join(parts)}: {names}{remedy}"
