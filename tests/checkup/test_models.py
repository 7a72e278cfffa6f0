"""Twelve kinds of models: no alarm on the healthy ones, the planted fault named on the broken ones."""

from __future__ import annotations

import pytest
import torch

import nndoctor

from .subjects import HEALTHY, SICK, UNUSUAL, Subject, blind, padded_reader


def examined(subject: Subject) -> nndoctor.Checkup:
    return nndoctor.checkup(subject.model, subject.loss, subject.batch, subject.optimizer, seconds=600, **subject.options)


@pytest.mark.parametrize("kind", HEALTHY)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_healthy_model_gives_no_alarm(kind: str, seed: int) -> None:
    torch.manual_seed(seed)
    checkup = examined(HEALTHY[kind]())
    assert checkup.passed, str(checkup)
    assert not checkup.warnings, str(checkup)
    assert not [e for e in checkup.examinations if "Error" in e.message], str(checkup)
    assert len([e for e in checkup.examinations if e.verdict == "passed"]) >= 9, str(checkup)


@pytest.mark.parametrize("kind", UNUSUAL)
def test_an_unusual_model_gives_no_alarm_and_every_examination_copes(kind: str) -> None:
    torch.manual_seed(0)
    checkup = examined(UNUSUAL[kind]())
    assert checkup.passed, str(checkup)
    assert not checkup.warnings, str(checkup)
    assert not [e for e in checkup.examinations if "Error" in e.message], str(checkup)
    for name in ("one batch can be learnt by heart", "learning rate", "samples are independent"):
        assert checkup[name].verdict == "passed", str(checkup)


def test_two_possible_dimensions_of_samples_are_asked_about_not_guessed() -> None:
    torch.manual_seed(0)
    subject = UNUSUAL["time before samples"]()
    subject.options = {}
    assert "batch_axis=0 or 1" in examined(subject)["samples are independent"].message


@pytest.mark.parametrize("fault", SICK)
def test_a_planted_fault_gets_its_name_and_nothing_that_is_in_order_gets_one(fault: str) -> None:
    torch.manual_seed(0)
    diagnosis, make = SICK[fault]
    checkup = examined(make())
    assert diagnosis in checkup.diagnoses, str(checkup)
    assert set(checkup.diagnoses) <= {diagnosis, *CONSEQUENCES.get(fault, ())}, str(checkup)


CONSEQUENCES = {
    "raw pixels": ("bad-initialization",),
    "weights from a standard normal": ("learning-rate-too-high",),
}
"""Other names that are true of a broken model as well."""


def test_a_model_that_does_not_read_its_inputs_is_found() -> None:
    torch.manual_seed(0)
    examination = examined(blind())["inputs matter"]
    assert examination.verdict == "failed", examination.message
    assert "does not use its inputs" in examination.message


def test_a_fit_that_is_slow_says_nothing_of_the_inputs() -> None:
    torch.manual_seed(0)
    subject = HEALTHY["cnn"]()
    subject.optimizer = torch.optim.SGD(subject.model.parameters(), lr=1e-4)
    checkup = examined(subject)
    assert checkup["inputs matter"].verdict == "passed", checkup["inputs matter"].message


def test_a_masked_reader_of_padded_text_gives_no_alarm() -> None:
    torch.manual_seed(0)
    checkup = examined(padded_reader())
    assert checkup["padding is masked"].verdict == "passed", str(checkup)
    assert checkup.passed, str(checkup)
    assert not checkup.warnings, str(checkup)
