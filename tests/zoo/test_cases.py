"""The whole system on real training runs: planted causes are named first, runs without one hear nothing.

A few cases of each kind, one seed. The clinic (``benchmarks/clinic.py``) runs all of them over three, and as much as fits into
a minute and a half whenever a change is to land.
"""

from __future__ import annotations

import math
from functools import cache

import pytest

from nndoctor.zoo.case import Case, Variant, alone, case_named, with_steps
from nndoctor.zoo.runner import CaseResult, run_case

SICK = [
    case_named(name)
    for name in (
        "bad-initialization",
        "dead-relu",
        "double-softmax",
        "exploding-gradients",
        "frozen-layer-unintended",
        "gradients-cleared-before-step",
        "inputs-not-normalised",
        "learning-rate-too-high-adam",
        "learning-rate-too-low",
        "loss-shape-broadcast",
        "missing-optimizer-step",
        "missing-zero-grad",
        "nan-or-inf",
        "same-batch-repeated",
        "targets-not-scaled",
        "vanishing-gradients",
    )
]
HEALTHY = [
    case_named(f"healthy-{name}")
    for name in (
        "accumulation",
        "adagrad",
        "class-weights",
        "converged",
        "dqn",
        "gan",
        "gradient-surgery",
        "graph",
        "lbfgs",
        "mixture-of-experts",
        "momentum",
        "noisy-table",
        "sparse-embedding",
        "stateful-series",
        "unfreezing",
        "vae",
    )
]


@cache
def result(name: str, variant: Variant) -> CaseResult:
    """One training run for all the claims about it."""
    return run_case(case_named(name), variant, seed=0)


def named(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", SICK, ids=named)
def test_the_planted_cause_is_the_first_root_cause_and_in_its_place(case: Case) -> None:
    sick = result(case.name, "sick")
    assert sick.root_cause_first, f"expected {case.diagnosis} first: {sick.verdict}"
    assert sick.place_right is not False, f"expected {case.place}, got {sick.targets}"


@pytest.mark.parametrize("case", SICK, ids=named)
def test_the_cured_run_hears_nothing_above_info(case: Case) -> None:
    assert result(case.name, "cured").false_alarms == ()


@pytest.mark.parametrize("case", SICK, ids=named)
def test_the_sick_run_does_worse_than_the_cured_one(case: Case) -> None:
    sick, cured = result(case.name, "sick").score, result(case.name, "cured").score
    if sick is None or cured is None:
        assert sick == cured, "both runs of a case are judged by a score, or neither is"
        return
    assert math.isnan(sick) or sick > 1.2 * cured


@pytest.mark.parametrize("case", HEALTHY, ids=named)
def test_the_healthy_run_hears_nothing_above_info(case: Case) -> None:
    assert result(case.name, "healthy").false_alarms == ()


@pytest.mark.parametrize("case", [*SICK, *HEALTHY], ids=named)
def test_no_probe_was_dismissed(case: Case) -> None:
    for variant in case.variants:
        assert result(case.name, variant).failures == ()


@pytest.mark.parametrize("name", ["healthy-cnn-batchnorm", "healthy-lstm", "healthy-accumulation", "healthy-bfloat16"])
def test_a_run_loses_the_same_with_and_without_the_doctor(name: str) -> None:
    import nndoctor

    train = with_steps(case_named(name).train("healthy"), 25)
    doctors: list[nndoctor.Doctor] = []

    def attach(model: object, optimizer: object, loss_fn: object = None, *, loader: object = None) -> nndoctor.Doctor:
        doctors.append(nndoctor.wrap(model, optimizer, loss_fn, loader=loader, ui="off", strict=True))  # type: ignore[arg-type]
        return doctors[-1]

    try:
        watched = train(3, attach)
    finally:
        for doctor in doctors:
            doctor.close()
    assert watched.losses == train(3, alone).losses
