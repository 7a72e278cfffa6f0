"""Cases are found by themselves, are complete, and say what they have."""

from __future__ import annotations

from functools import partial
from inspect import signature
from typing import Any

import pytest

from nndoctor.findings import Fix
from nndoctor.zoo.case import Attach, Case, UnknownCase, all_cases, alone, case_named, in_halves, with_steps
from nndoctor.zoo.halves import BLIND, SEEN
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
        first = case.name.partition("-")[0]
        assert first in (("healthy",) if case.diagnosis is None else case.diagnosis.split("-")), case.name
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


def recording(given: list[dict[str, Any]]) -> Any:
    def train(seed: int, attach: Attach, **settings: Any) -> Trained:
        given.append(settings)
        return Trained((), None)

    return train


def test_a_treatment_replaces_the_sick_value_and_nothing_else() -> None:
    given: list[dict[str, Any]] = []
    sick = partial(recording(given), rate=0.5, width=8)
    case = Case("rate", "learning-rate-too-high", "", sick=sick, cured=nothing, remedies={"lr": "rate"})
    treated = case.treated(Fix("Lower the rate", {"lr": 1e-3}))
    assert treated is not None
    treated(0, alone)
    assert given == [{"rate": 1e-3, "width": 8}]


def test_a_call_is_a_keyword_that_becomes_true_or_whatever_the_case_says_it_means() -> None:
    given: list[dict[str, Any]] = []
    sick = partial(recording(given), cleared=False, late=True)
    remedies = {"optimizer.zero_grad()": "cleared", "model.train()": {"late": False}}
    case = Case("calls", "missing-zero-grad", "", sick=sick, cured=nothing, remedies=remedies)
    for call in remedies:
        treated = case.treated(Fix("Call it", call=call))
        assert treated is not None
        treated(0, alone)
    assert given == [{"cleared": True, "late": True}, {"cleared": False, "late": False}]


def test_a_treatment_that_a_case_cannot_take_is_none() -> None:
    case = Case("rate", "learning-rate-too-high", "", sick=nothing, cured=nothing, remedies={"lr": "rate"})
    assert case.treated(Fix("Think again")) is None
    assert case.treated(Fix("Lower both", {"lr": 1e-3, "eps": 1e-6})) is None
    assert case.treated(Fix("Lower it and call", {"lr": 1e-3}, call="optimizer.step()")) is None


def test_the_first_fix_that_a_case_can_take_is_the_treatment() -> None:
    case = Case("rate", "learning-rate-too-high", "", sick=nothing, cured=nothing, remedies={"lr": "rate"})
    fixes = (Fix("Warm up"), Fix("Lower it", {"lr": 1e-3}), Fix("Lower it more", {"lr": 1e-4}))
    treatment = case.treatment(fixes)
    assert treatment is not None
    assert treatment[0].title == "Lower it"
    assert case.treatment(fixes[:1]) is None


def test_what_a_remedy_stands_for_is_a_keyword_of_the_sick_run() -> None:
    for case in all_cases():
        if case.sick is None:
            assert not case.remedies
            continue
        known = signature(case.sick).parameters
        for remedy in case.remedies.values():
            for keyword in (remedy,) if isinstance(remedy, str) else remedy:
                assert keyword in known, f"{case.name} takes no {keyword!r}"


def half(name: str, diagnosis: str = "dead-relu") -> Case:
    return Case(name, diagnosis, "", sick=nothing, cured=nothing)


def test_a_hash_of_the_name_decides_the_half() -> None:
    names = [f"case-{number}" for number in range(200)]
    tuned = {case.name for case in in_halves([half(name, name) for name in names]) if case.tuned}
    assert 70 < len(tuned) < 130
    assert tuned == {case.name for case in in_halves([half(name, name) for name in reversed(names)]) if case.tuned}


def test_a_diagnosis_with_several_cases_has_one_in_each_half() -> None:
    for count in (2, 3, 5):
        for start in range(40):
            halves = {case.tuned for case in in_halves([half(f"case-{start + number}") for number in range(count)])}
            assert halves == {True, False}


def test_a_case_that_rules_were_tuned_on_stays_in_the_tuned_half() -> None:
    seen, new = in_halves([half("dead-relu"), half("some-new-case")])
    assert seen.tuned
    assert not new.tuned
    assert all(case.tuned for case in in_halves([half("dead-relu"), half("dead-relu-cnn")]))


def test_a_case_that_was_written_blind_stays_in_the_untuned_half() -> None:
    assert not any(case.tuned for case in in_halves([half(name) for name in sorted(BLIND)]))


def test_every_name_that_counts_as_seen_or_blind_is_a_case_and_none_is_both() -> None:
    assert {case.name for case in all_cases()} >= SEEN | BLIND
    assert not SEEN & BLIND


def test_steps_are_passed_on_only_where_a_run_takes_them() -> None:
    def long(seed: int, attach: Attach, *, steps: int = 400) -> Trained:
        return Trained((0.0,) * steps, None)

    assert len(with_steps(long, 7)(0, alone).losses) == 7
    assert len(with_steps(long, None)(0, alone).losses) == 400
    assert with_steps(nothing, 7) is nothing
