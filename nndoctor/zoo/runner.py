"""Runs a case of the zoo under the doctor and says whether the doctor was right."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nndoctor
from nndoctor.findings import Diagnosis, Finding, Severity
from nndoctor.zoo.case import Case, Variant
from nndoctor.zoo.trainer import Observer


@dataclass(frozen=True)
class CaseResult:
    """What the doctor said about one run, against what was planted in it.

    Args:
        case, variant, seed: which run.
        expected: the diagnosis that was planted; None for a cured or healthy run.
        diagnosis: the diagnosis of the first root cause; None where nothing above ``info`` was found.
        root_cause_first: the first root cause is what was planted; for a run without an ailment, none was found.
        place_right: every target of that finding lies where the ailment was planted; None where it has no place.
        steps_to_diagnosis: the step at which it fired first; None where it did not.
        false_alarms: findings above ``info`` that nothing planted accounts for, as ``rule`` or ``rule at target``:
            all of them in a cured or healthy run, the other root causes in a sick one.
        targets: the targets of the first root cause.
        verdict: the doctor's sentence.
        steps: optimizer steps the doctor saw.
        score, final_loss: of the training itself; see :class:`~nndoctor.zoo.trainer.Trained`.
        seconds: wall time of the training.
        probe_failures: probes that were dismissed, which must never happen.
    """

    case: str
    variant: Variant
    seed: int
    expected: str | None
    diagnosis: str | None
    root_cause_first: bool
    place_right: bool | None
    steps_to_diagnosis: int | None
    false_alarms: tuple[str, ...]
    targets: tuple[str, ...]
    verdict: str
    steps: int
    score: float | None
    final_loss: float
    seconds: float
    probe_failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """The planted cause was named first and in the right place, or there was none and nothing was said."""
        if self.expected is None:
            return not self.false_alarms
        return self.root_cause_first and self.place_right is not False


def run_case(case: Case, variant: Variant, seed: int, *, rules: Sequence[str | Path] = ("core",)) -> CaseResult:
    """Trains the run with the doctor attached, in a temporary run folder and without a display.

    Raises:
        ValueError: the case has no such variant.
    """
    train = case.train(variant)
    attached: list[nndoctor.Doctor] = []
    with tempfile.TemporaryDirectory(prefix="nndoctor-zoo-", ignore_cleanup_errors=True) as folder:

        def attach(model: Any, optimizer: Any, loss_fn: Any = None, *, loader: Any = None) -> Observer:
            run_dir = Path(folder) / str(len(attached))
            doctor = nndoctor.wrap(
                model, optimizer, loss_fn, loader=loader, rules=rules, run_dir=run_dir, ui="off", name=case.name
            )
            attached.append(doctor)
            return doctor

        began = time.perf_counter()
        try:
            trained = train(seed, attach)
            seconds = time.perf_counter() - began
        finally:
            for doctor in attached:
                doctor.close()
        diagnosis = attached[-1].diagnosis()
    return judged(case, variant, seed, diagnosis, trained.score, trained.final_loss, seconds)


def judged(
    case: Case,
    variant: Variant,
    seed: int,
    diagnosis: Diagnosis,
    score: float | None,
    final_loss: float,
    seconds: float,
) -> CaseResult:
    """Holds `diagnosis` against what was planted in the run."""
    expected = case.diagnosis if variant == "sick" else None
    roots = diagnosis.root_causes
    first = roots[0] if roots else None
    hit = first is not None and first.diagnosis == expected
    if expected is None:
        alarms = [f for f in diagnosis.findings if f.severity > Severity.INFO and f.suppressed is None]
    else:
        alarms = [f for f in roots if f.diagnosis != expected]
    return CaseResult(
        case=case.name,
        variant=variant,
        seed=seed,
        expected=expected,
        diagnosis=first.diagnosis if first else None,
        root_cause_first=hit if expected is not None else first is None,
        place_right=at_the_place(first, case.place) if hit and first is not None and case.place else None,
        steps_to_diagnosis=next((f.first_step for f in roots if f.diagnosis == expected), None),
        false_alarms=tuple(_named(f) for f in alarms),
        targets=first.targets if first else (),
        verdict=diagnosis.verdict,
        steps=diagnosis.steps,
        score=score,
        final_loss=final_loss,
        seconds=seconds,
        probe_failures=tuple(f"{f.probe} at step {f.step}: {f.error}" for f in diagnosis.probe_failures),
    )


def at_the_place(finding: Finding, place: Sequence[str]) -> bool:
    """True if the finding names targets and each is one of `place`, or lies below one (``fc1.weight`` in ``fc1``)."""
    return bool(finding.targets) and all(
        any(target == name or target.startswith(f"{name}.") for name in place) for target in finding.targets
    )


def _named(finding: Finding) -> str:
    return f"{finding.rule} at {', '.join(finding.targets[:3])}" if finding.targets else finding.rule
