"""The clinic counts what was right and wrong, keeps the halves apart, and runs whole cases from sick to treated."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from nndoctor.rules.clinic import parse_clinic
from nndoctor.zoo.case import Attach, Case, all_cases
from nndoctor.zoo.runner import CaseResult, Spoken
from nndoctor.zoo.trainer import Trained


@pytest.fixture(scope="module")
def clinic() -> ModuleType:
    """``benchmarks/clinic.py``, which is no package."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "clinic.py"
    spec = importlib.util.spec_from_file_location("clinic", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["clinic"] = module
    spec.loader.exec_module(module)
    return module


def nothing(seed: int, attach: Attach) -> Trained:
    return Trained((), None)


DEAD = Case("dead", "dead-relu", "dead", sick=nothing, cured=nothing, place=("act2",), remedies={"bias": "bias"})
HIGH = replace(DEAD, name="high", diagnosis="learning-rate-too-high", place=(), remedies={}, tuned=False)
WELL = Case("well", None, "well", healthy=nothing, tuned=False)
CASES = (DEAD, HIGH, WELL)
RULES = {"dead-relu": "dead-relu", "dead-later": "dead-relu", "learning-rate-too-high": "learning-rate-too-high"}


def sick(case: Case, *spoken: Spoken, rank: int | None, place: bool | None = None, steps: int | None = None) -> CaseResult:
    return CaseResult(
        case.name, "sick", 0, case.diagnosis, rank, place, steps, spoken, score=2.0, final_loss=2.0, seconds=1.0
    )


def other(case: Case, variant: str, *spoken: Spoken, score: float = 0.5, remedy: str = "") -> CaseResult:
    return CaseResult(case.name, variant, 0, spoken=spoken, score=score, seconds=1.0, remedy=remedy)  # type: ignore[arg-type]


DEAD_SPOKE = Spoken("dead-relu", "dead-relu", 20, ("act2",))
RESULTS = (
    sick(DEAD, DEAD_SPOKE, Spoken("dead-later", "dead-relu", 30, (), "dead-relu"), rank=1, place=True, steps=19),
    other(DEAD, "treated", remedy="set bias=0"),
    other(DEAD, "cured"),
    sick(HIGH, DEAD_SPOKE, Spoken("learning-rate-too-high", "learning-rate-too-high", 50), rank=2, steps=49),
    other(HIGH, "cured", DEAD_SPOKE),
    other(WELL, "healthy"),
)


def test_right_and_wrong_are_counted_for_rules_and_diagnoses(clinic: ModuleType) -> None:
    table = parse_clinic(json.dumps(clinic.summary(CASES, clinic.tallied(CASES, RESULTS), RULES, [0])))
    dead, late = table.rules["dead-relu"].all, table.rules["dead-later"].all
    assert (dead.right, dead.planted, dead.wrong) == (1, 1, 2)
    assert (late.right, late.planted, late.wrong) == (1, 1, 0)
    assert dead.precision == pytest.approx(1 / 3)
    assert dead.recall == 1.0
    assert table.rules["dead-relu"].untuned.wrong == 2
    assert table.rules["dead-relu"].untuned.recall is None
    assert table.diagnoses["learning-rate-too-high"].all.recall == 1.0
    assert table.diagnoses["learning-rate-too-high"].first == 0
    assert table.diagnoses["dead-relu"].steps == (19, 19)
    assert (table.sick, table.healthy, table.seeds) == (2, 1, 1)


def test_the_halves_are_kept_apart(clinic: ModuleType) -> None:
    halves = clinic.tallied(CASES, RESULTS).halves
    assert (halves["tuned"].first.right, halves["tuned"].first.of) == (1, 1)
    assert (halves["untuned"].first.right, halves["untuned"].first.of) == (0, 1)
    assert (halves["all"].among_three.right, halves["all"].among_three.of) == (2, 2)
    assert (halves["untuned"].cured.right, halves["untuned"].cured.of) == (0, 1)
    assert halves["untuned"].healthy.right == 1
    assert (halves["tuned"].alarms, halves["untuned"].alarms) == (0, 2)


def test_a_remedy_that_was_not_offered_is_a_cure_that_failed(clinic: ModuleType) -> None:
    with_it = clinic.tallied(CASES, RESULTS).halves["all"].remedy
    without = clinic.tallied(CASES, [r for r in RESULTS if r.variant != "treated"]).halves["all"].remedy
    assert (with_it.right, with_it.of) == (1, 1)
    assert (without.right, without.of) == (0, 1)


def test_a_place_counts_as_wrong_where_the_cause_was_missed(clinic: ModuleType) -> None:
    missed = clinic.tallied([DEAD], [sick(DEAD, rank=None)]).halves["all"]
    assert (missed.place.right, missed.place.of) == (0, 1)
    assert missed.steps == []


def test_the_page_has_every_case_rule_and_mishap(clinic: ModuleType) -> None:
    page = clinic.markdown(CASES, clinic.tallied(CASES, RESULTS), RULES, [0])
    for name in (*RULES, *(case.name for case in CASES)):
        assert f"`{name}`" in page
    assert "FAIL high sick seed 0: dead-relu" in page
    assert "1/1: set bias=0" in page
    assert "| root cause first | – | 0/1 (0 %) | 1/1 (100 %) | 1/2 (50 %) |" in page


def test_the_summary_reads_back_and_has_one_line_per_row(clinic: ModuleType) -> None:
    text = clinic.compact(clinic.summary(CASES, clinic.tallied(CASES, RESULTS), RULES, [0]))
    assert parse_clinic(text).rules.keys() == RULES.keys()
    assert len(text.splitlines()) >= len(RULES) + 2


def test_the_fast_part_fits_into_its_budget_and_takes_the_quickest_of_each_diagnosis(clinic: ModuleType) -> None:
    slow = replace(DEAD, name="dead-slow")
    chosen = clinic.quick([*CASES, slow], {"dead": 5.0, "dead-slow": 9.0, "high": 40.0, "well": 3.0}, 20.0)
    assert [case.name for case in chosen] == ["dead", "well"]
    every = all_cases()
    seconds = {case.name: 4.0 for case in every}
    names = [case.name for case in clinic.quick(every, seconds, 40.0)]
    assert len(names) == 10
    assert any(name.startswith("healthy-") for name in names)


def test_a_case_is_run_sick_treated_and_judged(clinic: ModuleType) -> None:
    first, treated = clinic.run_task(("missing-zero-grad", "sick", 0))
    (cured,) = clinic.run_task(("missing-zero-grad", "cured", 0))
    assert first.passed
    assert first.steps_to_diagnosis <= 5
    assert treated.remedy.startswith("call optimizer.zero_grad() before loss.backward()")
    from nndoctor.zoo.runner import cures

    assert cures(first, cured, treated)


def test_a_run_that_raises_is_a_result_that_says_so(clinic: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(seed: int, attach: Attach) -> Trained:
        raise RuntimeError("no data")

    monkeypatch.setattr("nndoctor.zoo.case.case_named", lambda name: replace(WELL, healthy=broken))
    (result,) = clinic.run_task(("well", "healthy", 0))
    assert result.failures == ("RuntimeError: no data",)
    assert not result.passed
    assert "RuntimeError: no data" in clinic.line(result)


def test_runs_read_back_as_they_were_and_those_made_anew_take_their_place(
    clinic: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Spoken("dead-relu", "dead-relu", 12, ("act2",), None)
    runs = [sick(DEAD, found, rank=1, place=False, steps=0), replace(other(WELL, "healthy", score=float("inf")), final_loss=0.5)]
    monkeypatch.setattr(clinic, "EVERY_RUN", tmp_path / "clinic.json")
    clinic.EVERY_RUN.write_text(json.dumps({"seeds": [0], "runs": [clinic.as_json(run) for run in runs]}), encoding="utf-8")
    assert clinic.stored_runs() == runs
    anew = sick(DEAD, rank=None)
    assert clinic.merged([anew], clinic.stored_runs()) == [anew, runs[1]]
