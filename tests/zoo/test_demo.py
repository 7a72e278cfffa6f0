"""The demo trains, names, treats with the doctor's own values where it can, and says honestly where it cannot."""

from __future__ import annotations

import subprocess
import sys
import webbrowser
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from nndoctor.cli.demo import EnoughSteps, demo, remedy, stop_after
from nndoctor.findings import Diagnosis, Finding, Fix, Severity
from nndoctor.zoo.case import Attach, Case, alone
from nndoctor.zoo.trainer import Trained


def train(seed: int, attach: Attach, *, rate: float) -> Trained:
    return Trained((rate,), None)


CASE = Case(
    "rate",
    "learning-rate-too-high",
    "a rate",
    sick=partial(train, rate=0.5),
    cured=partial(train, rate=0.01),
    remedies={"lr": "rate"},
)


def named(diagnosis: str, *fixes: Fix) -> Diagnosis:
    return Diagnosis((Finding(diagnosis, diagnosis, Severity.ERROR, "high", (), 1, 9, fixes=fixes),), steps=9)


def test_the_doctors_own_value_is_what_the_second_run_trains_with() -> None:
    second = remedy(CASE, named("learning-rate-too-high", Fix("Lower the rate", {"lr": 3e-3})))
    assert second.train(0, alone).losses == (3e-3,)
    assert second.label == "the doctor's own fix: set lr=0.003"


def test_a_fix_that_the_case_cannot_take_runs_the_cured_case_and_says_so() -> None:
    second = remedy(CASE, named("learning-rate-too-high", Fix("Call zero_grad()", call="optimizer.zero_grad()")))
    assert second.train(0, alone).losses == (0.01,)
    assert second.label == "what the doctor asks for, done by hand: Call zero_grad()"


def test_a_second_best_fix_with_a_value_is_better_than_none() -> None:
    second = remedy(CASE, named("learning-rate-too-high", Fix("Warm up"), Fix("Lower the rate", {"lr": 2e-3})))
    assert second.train(0, alone).losses == (2e-3,)


@pytest.mark.parametrize("diagnosis", [Diagnosis(steps=9), named("dead-relu", Fix("Zero the biases", {"bias": 0.0}))])
def test_a_cause_that_was_not_named_is_admitted(diagnosis: Diagnosis) -> None:
    second = remedy(CASE, diagnosis)
    assert second.train(0, alone).losses == (0.01,)
    assert "did not name it" in second.label


def test_a_loop_of_its_own_length_is_stopped_after_the_steps_asked_for() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    optimizers: dict[str, Any] = {"a": torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.1)}
    optimizers["b"] = torch.optim.SGD([weight], 0.1)
    stop_after(optimizers, 3)
    optimizers["b"].step()
    optimizers["b"].step()
    with pytest.raises(EnoughSteps):
        optimizers["b"].step()


def test_a_case_is_trained_twice_and_ends_in_one_report_and_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "demo.html"
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    assert demo("missing-zero-grad", steps=40, ui="off", out=out, show=True) == 0
    assert opened == [out.as_uri()]
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == f"report: {out}"
    assert "missing-zero-grad" in printed.out.splitlines()[-1]
    assert (printed.out + printed.err).count("1 root cause: missing-zero-grad") == 1
    assert "the doctor's own fix: call optimizer.zero_grad() before loss.backward()" in printed.err
    assert "call optimizer.zero_grad() before loss.backward()" in out.read_text(encoding="utf-8")
    assert len(list((tmp_path / ".nndoctor" / "runs").iterdir())) == 2


def test_a_healthy_case_is_trained_once_and_nothing_is_opened_where_nobody_looks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda address: pytest.fail("not asked for, and no terminal"))
    assert demo("healthy-mlp", steps=30, ui="off", out=tmp_path / "demo.html") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("No problems found in 30 steps")
    assert len(list((tmp_path / ".nndoctor" / "runs").iterdir())) == 1


def test_the_list_names_every_case_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo(list_cases=True) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines]
    assert len(set(names)) == len(names) > 40
    assert "learning-rate-too-high" in names


def test_an_unknown_case_and_a_senseless_number_of_steps_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo("dead-rellu") == 2
    assert "did you mean 'dead-relu'" in capsys.readouterr().err
    assert demo("dead-relu", steps=0) == 2
    assert "expected at least 1" in capsys.readouterr().err


def test_a_doctor_that_is_switched_off_has_nothing_to_show(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NNDOCTOR", "0")
    assert demo("missing-zero-grad", steps=2, ui="off") == 2
    assert "NNDOCTOR=0" in capsys.readouterr().err


def test_importing_the_command_imports_no_torch() -> None:
    code = "import sys, nndoctor.cli.demo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
