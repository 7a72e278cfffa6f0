"""Cases are found by themselves, are complete, and say what they have."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from nndoctor.zoo.case import Attach, Case, UnknownCase, all_cases, alone, case_named, with_steps
from nndoctor.zoo.trainer import Trained

REQUIRED = {
    "learning-rate-too-high",
    "learning-rate-too-low",
    "lr-schedule-misconfigured",
    "exploding-gradients",
    "vanishing-gradients",
    "dead-relu",
    "saturated-activations",
    "bad-initialization",
    "missing-zero-grad",
    "gradients-cleared-before-step",
    "missing-optimizer-step",
    "parameters-not-in-optimizer",
    "frozen-layer-unintended",
    "unused-parameters",
    "eval-mode-during-training",
    "double-softmax",
    "loss-shape-broadcast",
    "inputs-not-normalised",
    "targets-not-scaled",
    "nan-or-inf",
    "same-batch-repeated",
    "input-bound",
    "overfitting",
}


def nothing(seed: int, attach: Attach) -> Trained:
    return Trained((), None)


def test_every_diagnosis_of_the_core_has_a_case() -> None:
    assert {case.diagnosis for case in all_cases()} >= REQUIRED


def test_there_are_healthy_runs_of_many_kinds() -> None:
    assert len([case for case in all_cases() if case.diagnosis is None]) >= 36


def test_names_are_unique_and_say_what_a_case_is_about() -> None:
    cases = all_cases()
    assert len({case.name for case in cases}) == len(cases)
    for case in cases:
        assert case.name.startswith("healthy-" if case.diagnosis is None else case.diagnosis.split("-")[0])
        assert case.description
        assert case.source == "" or case.source.startswith("https://")


def test_a_case_is_found_by_its_name_and_by_its_diagnosis() -> None:
    assert case_named("dead-relu-cnn").name == "dead-relu-cnn"
    assert case_named("gradients-cleared-before-step").diagnosis == "gradients-cleared-before-step"


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(UnknownCase, match="did you mean 'dead-relu'"):
        case_named("dead-rellu")


def test_an_ailment_without_a_cured_run_is_refused() -> None:
    with pytest.raises(ValueError, match="expected the runs cured, sick for diagnosis dead-relu, got sick"):
        Case("half", "dead-relu", "half a case", sick=nothing)


def test_a_healthy_case_has_no_sick_run() -> None:
    case = Case("well", None, "nothing", healthy=nothing)
    assert case.variants == ("healthy",)
    with pytest.raises(ValueError, match="has no 'sick' run; it has healthy"):
        case.train("sick")


def test_a_treatment_replaces_the_sick_value_and_nothing_else() -> None:
    given: list[dict[str, Any]] = []

    def train(seed: int, attach: Attach, **settings: Any) -> Trained:
        given.append(settings)
        return Trained((), None)

    sick = partial(train, rate=0.5, width=8)
    case = Case("rate", "learning-rate-too-high", "", sick=sick, cured=nothing, remedies={"lr": "rate"})
    treated = case.treated({"lr": 1e-3})
    assert treated is not None
    treated(0, alone)
    assert given == [{"rate": 1e-3, "width": 8}]


def test_a_treatment_that_a_case_cannot_take_is_none() -> None:
    case = Case("rate", "learning-rate-too-high", "", sick=nothing, cured=nothing, remedies={"lr": "rate"})
    assert case.treated({}) is None
    assert case.treated({"lr": 1e-3, "eps": 1e-6}) is None


def test_steps_are_passed_on_only_where_a_run_takes_them() -> None:
    def long(seed: int, attach: Attach, *, steps: int = 400) -> Trained:
        return Trained((0.0,) * steps, None)

    assert len(with_steps(long, 7)(0, alone).losses) == 7
    assert len(with_steps(long, None)(0, alone).losses) == 400
    assert with_steps(nothing, 7) is nothing
