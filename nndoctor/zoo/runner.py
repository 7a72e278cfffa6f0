"""Runs a case of the zoo under the doctor, treats it with the doctor's own remedy, and says whether both were right."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import nndoctor
from nndoctor.findings import Diagnosis, Finding, Severity, describe_fix
from nndoctor.zoo.case import Case, Train, Variant
from nndoctor.zoo.trainer import Observer, Trained

Rules: TypeAlias = Sequence[str | Path]
RunKind: TypeAlias = Literal["sick", "cured", "healthy", "treated"]

GAP_CLOSED = 0.8
"""Share of the way from the sick to the cured score that a treatment has to go."""
WORST = 10.0
"""A sick run counts as at most this many times as bad as the cured one, so that an explosion sets no low bar."""
DIVERGED = 4.0
"""A loss of this many times its start has doubled twice."""


@dataclass(frozen=True)
class Spoken:
    """A finding above ``info``: the rule, what it supports, where and when it fired, and the cause it was folded under."""

    rule: str
    diagnosis: str
    step: int
    targets: tuple[str, ...] = ()
    explained_by: str | None = None

    def __str__(self) -> str:
        return f"{self.rule} at {', '.join(self.targets[:3])}" if self.targets else self.rule


@dataclass(frozen=True)
class CaseResult:
    """What the doctor said about one run, against what was planted in it.

    Args:
        case, variant, seed: which run; ``treated`` is the sick run with the doctor's own remedy.
        expected: the diagnosis that was planted; None for a cured, healthy or treated run.
        rank: its place among the root causes, from 1; None where it is not among them or nothing was planted.
        place_right: every target of that finding lies where the ailment was planted; None where there is no place
            or the finding is missing.
        steps_to_diagnosis: optimizer steps from the onset to its first firing; None where it did not fire.
        spoken: all findings above ``info``, root causes first.
        verdict: the doctor's sentence.
        steps: optimizer steps the doctor saw.
        score, final_loss: of the training itself; see :class:`~nndoctor.zoo.trainer.Trained`.
        seconds: wall time of the training.
        failures: probes that were dismissed, judging that failed, or the exception that ended the run; must be empty.
        remedy: what the doctor's fix says, in a treated run.
        divergence_in_time: whether it fired by the step whose loss had doubled twice; None where the loss never did, or came back.
    """

    case: str
    variant: RunKind
    seed: int
    expected: str | None = None
    rank: int | None = None
    place_right: bool | None = None
    steps_to_diagnosis: int | None = None
    spoken: tuple[Spoken, ...] = ()
    verdict: str = ""
    steps: int = 0
    score: float | None = None
    final_loss: float = math.nan
    seconds: float = 0.0
    failures: tuple[str, ...] = ()
    remedy: str = ""
    divergence_in_time: bool | None = None

    @property
    def roots(self) -> tuple[Spoken, ...]:
        """The root causes, the first of them first."""
        return tuple(spoken for spoken in self.spoken if spoken.explained_by is None)

    @property
    def diagnosis(self) -> str | None:
        """The diagnosis of the first root cause; None where nothing above ``info`` was found."""
        return self.roots[0].diagnosis if self.roots else None

    @property
    def targets(self) -> tuple[str, ...]:
        """Where the first root cause sits."""
        return self.roots[0].targets if self.roots else ()

    @property
    def root_cause_first(self) -> bool:
        """The first root cause is what was planted; for a run without an ailment, nothing was found."""
        return self.rank == 1 if self.expected is not None else not self.roots

    @property
    def false_alarms(self) -> tuple[str, ...]:
        """What nothing planted accounts for: every finding where nothing was, the other root causes in a sick run."""
        alarms = self.spoken if self.expected is None else self.roots
        return tuple(str(spoken) for spoken in alarms if spoken.diagnosis != self.expected)

    @property
    def passed(self) -> bool:
        """The planted cause was named first and in the right place, or there was none and nothing was said."""
        if self.failures:
            return False
        if self.expected is None:
            return not self.false_alarms
        return self.root_cause_first and self.place_right is not False


def run_case(case: Case, variant: Variant, seed: int, *, rules: Rules = ("core",)) -> CaseResult:
    """Trains the run with the doctor attached, in a temporary run folder and without a display.

    Raises:
        ValueError: the case has no such variant.
    """
    trained, diagnosis, seconds = _examined(case, case.train(variant), seed, rules)
    return judged(case, variant, seed, diagnosis, trained, seconds)


def run_sick(case: Case, seed: int, *, rules: Rules = ("core",)) -> tuple[CaseResult, CaseResult | None]:
    """The sick run, and the same treated with the first fix of its first root cause that the case can take.

    The second is None where the doctor named no fix of that kind.
    """
    trained, diagnosis, seconds = _examined(case, case.train("sick"), seed, rules)
    sick = judged(case, "sick", seed, diagnosis, trained, seconds)
    treatment = case.treatment(fix for finding in diagnosis.root_causes[:1] for fix in finding.fixes)
    if treatment is None:
        return sick, None
    fix, train = treatment
    trained, diagnosis, seconds = _examined(case, train, seed, rules)
    return sick, judged(case, "treated", seed, diagnosis, trained, seconds, describe_fix(fix))


def _examined(case: Case, train: Train, seed: int, rules: Rules) -> tuple[Trained, Diagnosis, float]:
    """What the training gave, what the doctor said about it, and the seconds it took."""
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
        return trained, attached[-1].diagnosis(), seconds


def judged(
    case: Case, variant: RunKind, seed: int, diagnosis: Diagnosis, trained: Trained, seconds: float, remedy: str = ""
) -> CaseResult:
    """Holds `diagnosis` against what was planted in the run."""
    expected = case.diagnosis if variant == "sick" else None
    roots = diagnosis.root_causes
    hits = [finding for finding in roots if finding.diagnosis == expected]
    loud = [f for f in diagnosis.findings if f.severity > Severity.INFO and f.suppressed is None]
    onset = case.onset if trained.onset is None else trained.onset
    found = min((finding.first_step for finding in hits), default=None)
    diverged = divergence(trained)
    return CaseResult(
        case=case.name,
        variant=variant,
        seed=seed,
        expected=expected,
        rank=list(dict.fromkeys(f.diagnosis for f in roots)).index(hits[0].diagnosis) + 1 if hits else None,
        place_right=at_the_place(hits[0], case.place) if hits and case.place else None,
        steps_to_diagnosis=None if found is None else found - onset,
        divergence_in_time=None if expected is None or diverged is None else found is not None and found <= diverged,
        spoken=tuple(Spoken(f.rule, f.diagnosis, f.first_step, f.targets, f.explained_by) for f in loud),
        verdict=diagnosis.verdict,
        steps=diagnosis.steps,
        score=trained.score,
        final_loss=trained.final_loss,
        seconds=seconds,
        failures=tuple(f"{f.probe} at step {f.step}: {f.error}" for f in diagnosis.probe_failures),
        remedy=remedy,
    )


def divergence(trained: Trained) -> int | None:
    """The first step, from 1, whose loss is above `DIVERGED` times that of step 1 or is not finite, in a run that ends no
    better than it began; None where there is none."""
    losses = trained.losses
    if not losses or losses[0] <= 0 or trained.final_loss < losses[0]:
        return None
    return next((step for step, loss in enumerate(losses, 1) if not loss <= DIVERGED * losses[0]), None)


def at_the_place(finding: Finding, place: Sequence[str]) -> bool:
    """True if the finding names targets and each is one of `place`, or lies below one (``fc1.weight`` in ``fc1``)."""
    return bool(finding.targets) and all(
        any(target == name or target.startswith(f"{name}.") for name in place) for target in finding.targets
    )


def cures(sick: CaseResult, cured: CaseResult, treated: CaseResult) -> bool:
    """Whether the treated run is rid of the diagnosis and has gone `GAP_CLOSED` of the way to the cured score.

    The way is measured in the logarithm, and from `WORST` times the cured score at most; in plain numbers where a
    score is not positive. Where a case has no score, the diagnosis alone decides.
    """
    if treated.failures or any(spoken.diagnosis == sick.expected for spoken in treated.spoken):
        return False
    if cured.score is None or treated.score is None or sick.score is None:
        return True
    return treated.score <= _goal(sick.score, cured.score)


def _goal(sick: float, cured: float) -> float:
    """The largest score of a treated run that counts as cured."""
    if cured > 0:
        worse = min(sick / cured, WORST) if math.isfinite(sick) else WORST
        return float(cured * max(worse, 1.0) ** (1 - GAP_CLOSED))
    gap = sick - cured if math.isfinite(sick) else WORST * abs(cured)
    return cured + (1 - GAP_CLOSED) * max(gap, 0.0)
