"""What counts as right, as the right place and as a false alarm."""

from __future__ import annotations

import math

import pytest

from nndoctor.findings import Diagnosis, Finding, ProbeFailure, Severity
from nndoctor.zoo.case import Attach, Case, Variant
from nndoctor.zoo.runner import CaseResult, Spoken, at_the_place, cures, judged
from nndoctor.zoo.trainer import Trained


def nothing(seed: int, attach: Attach) -> Trained:
    return Trained((), None)


CASE = Case("dead", "dead-relu", "a dead layer", sick=nothing, cured=nothing, place=("act2", "fc2"))
HEALTHY = Case("well", None, "nothing", healthy=nothing)


def finding(
    diagnosis: str,
    *targets: str,
    severity: Severity = Severity.ERROR,
    step: int = 50,
    explained_by: str | None = None,
) -> Finding:
    return Finding(diagnosis, diagnosis, severity, "high", targets, step, 100, explained_by=explained_by)


def judge(case: Case, variant: Variant, *findings: Finding) -> CaseResult:
    return judged(case, variant, 0, Diagnosis(findings, steps=100), Trained((1.0,), 1.0), 0.1)


def test_the_planted_cause_first_and_in_its_place_passes() -> None:
    result = judge(
        CASE, "sick", finding("dead-relu", "act2", step=42), finding("loss-plateau", explained_by="dead-relu")
    )
    assert result.passed
    assert result.root_cause_first
    assert result.place_right
    assert result.steps_to_diagnosis == 41
    assert result.false_alarms == ()


def test_the_planted_cause_second_does_not_pass() -> None:
    result = judge(CASE, "sick", finding("learning-rate-too-high"), finding("dead-relu", "act2"))
    assert not result.passed
    assert result.diagnosis == "learning-rate-too-high"
    assert result.false_alarms == ("learning-rate-too-high",)
    assert result.steps_to_diagnosis == 49
    assert result.rank == 2


def test_the_right_cause_in_the_wrong_place_does_not_pass() -> None:
    assert not judge(CASE, "sick", finding("dead-relu", "act2", "act7")).passed
    assert not judge(CASE, "sick", finding("dead-relu")).passed


def test_silence_about_a_sick_run_does_not_pass() -> None:
    result = judge(CASE, "sick")
    assert not result.passed
    assert result.steps_to_diagnosis is None


def test_any_finding_above_info_in_a_run_without_ailment_is_a_false_alarm() -> None:
    folded = finding("loss-plateau", "fc1", severity=Severity.WARNING, explained_by="other")
    for case, variant in ((CASE, "cured"), (HEALTHY, "healthy")):
        result = judge(case, variant, folded)  # type: ignore[arg-type]
        assert not result.passed
        assert result.false_alarms == ("loss-plateau at fc1",)


def test_info_in_a_run_without_ailment_is_no_alarm() -> None:
    assert judge(HEALTHY, "healthy", finding("overfitting", severity=Severity.INFO)).passed
    assert judge(CASE, "cured").passed


def test_a_parameter_of_a_module_is_at_its_place_and_a_namesake_is_not() -> None:
    assert at_the_place(finding("x", "fc2.weight", "fc2"), ("fc2",))
    assert not at_the_place(finding("x", "fc20"), ("fc2",))
    assert not at_the_place(finding("x", "fc2", "fc3"), ("fc2",))


def test_steps_count_from_the_onset() -> None:
    case = Case("late", "dead-relu", "a layer that dies late", sick=nothing, cured=nothing, onset=30)
    assert judge(case, "sick", finding("dead-relu", "act2", step=42)).steps_to_diagnosis == 12


@pytest.mark.parametrize(
    ("losses", "step", "in_time"),
    [
        ((2.0, 5.0, 9.0, 40.0), 3, True),  # told in the step in which the loss has doubled twice
        ((2.0, 5.0, 9.0, 40.0), 4, False),
        ((2.0, 5.0, math.nan, math.nan), 3, True),
        ((2.0, 5.0, 7.9, 7.0), 2, None),  # it never has
        ((2.0, 9.0, *[1.0] * 20), 2, None),  # it came back
    ],
)
def test_a_diverging_run_is_told_in_time_by_the_step_whose_loss_has_doubled_twice(
    losses: tuple[float, ...], step: int, in_time: bool | None
) -> None:
    found = Diagnosis((finding("dead-relu", "act2", step=step),), steps=100)
    assert judged(CASE, "sick", 0, found, Trained(losses, None), seconds=1.0).divergence_in_time is in_time


def test_two_rules_of_one_diagnosis_take_one_rank() -> None:
    result = judge(CASE, "sick", finding("vanishing", "a"), finding("vanishing", "b"), finding("dead-relu", "act2"))
    assert result.rank == 2


def test_a_run_in_which_a_probe_was_dismissed_does_not_pass() -> None:
    failed = Diagnosis((), probe_failures=(ProbeFailure("units", 3, "ValueError"),), steps=100)
    result = judged(HEALTHY, "healthy", 0, failed, Trained((), None), 0.1)
    assert result.failures == ("units at step 3: ValueError",)
    assert not result.passed


def scored(score: float | None, *spoken: str, expected: str | None = None) -> CaseResult:
    return CaseResult("dead", "treated", 0, expected, spoken=tuple(Spoken(name, name, 1) for name in spoken), score=score)


@pytest.mark.parametrize(
    ("sick", "cured", "treated", "works"),
    [
        (2.0, 0.5, 0.5, True),
        (2.0, 0.5, 0.65, True),  # 0.5 * 4 ** 0.2 = 0.66
        (2.0, 0.5, 0.7, False),
        (2.0, 0.5, math.nan, False),
        (math.nan, 0.5, 0.79, True),  # 0.5 * 10 ** 0.2 = 0.792
        (1e9, 0.5, 0.8, False),
        (-0.1, -1.0, -0.83, True),
        (-0.1, -1.0, -0.8, False),
        (0.4, 0.5, 0.5, True),
        (None, None, None, True),
    ],
)
def test_a_cure_closes_most_of_the_gap(sick: float | None, cured: float | None, treated: float | None, works: bool) -> None:
    assert cures(scored(sick, expected="dead-relu"), scored(cured), scored(treated)) is works


def test_a_treated_run_that_still_has_the_diagnosis_is_not_cured() -> None:
    sick = scored(2.0, expected="dead-relu")
    assert not cures(sick, scored(0.5), scored(0.5, "dead-relu"))
    assert cures(sick, scored(0.5), scored(0.5, "overfitting"))
