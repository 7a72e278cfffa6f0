"""What happens when a finding begins: callbacks, checkpoints, an end of the training that a rule asks for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import nndoctor
from nndoctor.doctor import attached_doctors
from nndoctor.findings import Finding, Severity
from nndoctor.record import RecordReader
from nndoctor.responses import MOST_CHECKPOINTS, Responses, Wishes, save_checkpoint
from nndoctor.rules import RulesetError, load_rulesets, load_text

X = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
Y = (X.sum(1) > 0).long()

RULES = """
version: 1
name: mine
extends: [core]
overrides:
  - {rules: learning-rate-too-high, action: stop, reason: a diverged run only costs money}
rules:
  - {id: always, severity: info, when: "step >= 5", action: %s}
"""


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    yield
    for doctor in attached_doctors():
        doctor.close()


def ruleset(tmp_path: Path, action: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(RULES % action, encoding="utf-8")
    return path


def net() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    return model, torch.optim.SGD(model.parameters(), lr=0.05)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, doctor: nndoctor.Doctor | None = None) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(X), Y).backward()
        optimizer.step()
        if doctor is not None:
            doctor.diagnosis()  # waits until this step is judged, so that what follows does not depend on the machine


def wrap(tmp_path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, **options: Any) -> nndoctor.Doctor:
    return nndoctor.wrap(model, optimizer, run_dir=tmp_path / "run", ui="off", strict=True, **options)


FINDING = Finding("always", "always", Severity.WARNING, "high", (), 5, 5, message="step 5")


def responses(wishes: Wishes, actions: dict[str, str] | None = None, saved: list[Finding] | None = None) -> Responses:
    def failed(where: str, error: Exception) -> None:
        raise AssertionError(where) from error

    return Responses(wishes, actions or {}, (saved if saved is not None else []).append, failed)


def test_a_callback_hears_a_finding_once_when_it_begins_and_again_when_it_comes_back() -> None:
    heard: list[int] = []
    told = responses(Wishes(on_finding=lambda finding: heard.append(finding.first_step)))
    told.tell([FINDING])
    told.tell([replace(FINDING, last_step=9)])
    told.tell([replace(FINDING, state="cleared")])
    told.tell([replace(FINDING, first_step=30)])
    assert heard == [5, 30]


def test_a_silenced_finding_is_answered_by_nothing() -> None:
    heard: list[Finding] = []
    told = responses(Wishes(on_finding=heard.append, checkpoint_at=Severity.INFO), {"always": "stop"})
    told.tell([replace(FINDING, suppressed="known")])
    told.step_ended()
    assert not heard


@pytest.mark.parametrize(("at", "saves"), [(Severity.INFO, 1), (Severity.WARNING, 1), (Severity.ERROR, 0), (None, 0)])
def test_a_checkpoint_is_saved_from_the_chosen_severity_on(at: Severity | None, saves: int) -> None:
    saved: list[Finding] = []
    told = responses(Wishes(checkpoint_at=at), saved=saved)
    told.tell([FINDING])
    assert not saved, "not before the step has ended"
    told.step_ended()
    told.step_ended()
    assert len(saved) == saves


def test_no_more_than_a_few_checkpoints_are_saved() -> None:
    saved: list[Finding] = []
    told = responses(Wishes(checkpoint_at=Severity.INFO), saved=saved)
    told.tell([replace(FINDING, rule=f"rule-{i}") for i in range(10)])
    told.step_ended()
    assert len(saved) == MOST_CHECKPOINTS


def test_the_callback_is_called_in_the_doctors_thread_with_the_remedy(tmp_path: Path) -> None:
    model, optimizer = net()
    heard: list[tuple[str, str]] = []
    doctor = wrap(tmp_path, model, optimizer, on_finding=lambda f: heard.append((f.rule, threading.current_thread().name)), rules=ruleset(tmp_path, "none"))
    train(model, optimizer, 10, doctor)
    assert heard == [("always", "nndoctor")]


def test_a_callback_that_raises_is_reported_and_stops_nothing(tmp_path: Path) -> None:
    model, optimizer = net()

    def broken(finding: Finding) -> None:
        raise KeyError("no such channel")

    doctor = wrap(tmp_path, model, optimizer, on_finding=broken, rules=ruleset(tmp_path, "none"))
    train(model, optimizer, 12, doctor)
    doctor.close()
    diagnosis = doctor.diagnosis()
    assert [failure.probe for failure in diagnosis.probe_failures] == ["on_finding at always"], diagnosis.probe_failures
    assert diagnosis.steps == 12


def test_a_rule_that_asks_for_it_ends_the_training_at_the_end_of_a_step(tmp_path: Path) -> None:
    model, optimizer = net()
    doctor = wrap(tmp_path, model, optimizer, rules=ruleset(tmp_path, "stop"))
    with pytest.raises(nndoctor.StopTraining, match="always") as stopped, doctor:
        train(model, optimizer, 20, doctor)
    assert stopped.value.finding.first_step == 5
    assert doctor.step in (5, 6), "at the end of that step, or of the next where it was not judged in time"
    reader = RecordReader(doctor.run_dir)
    assert reader.status == "finished", "the user's own wish is no crash"
    reader.close()


def test_no_rule_of_core_ends_a_training() -> None:
    assert {rule.action for rule in load_rulesets(["core"]).rules} == {"none"}


def test_an_override_gives_a_rule_of_core_an_action(tmp_path: Path) -> None:
    rules = {rule.id: rule for rule in load_rulesets([ruleset(tmp_path, "none")]).rules}
    assert rules["learning-rate-too-high"].action == "stop"


def test_an_unknown_action_is_refused_when_the_rules_are_loaded() -> None:
    with pytest.raises(RulesetError, match="checkpoint"):
        load_text("version: 1\nrules:\n  - {id: r, severity: info, when: loss > 1, action: halt}\n")


def test_with_on_stop_nothing_is_raised(tmp_path: Path) -> None:
    model, optimizer = net()
    asked: list[tuple[str, bool]] = []
    training = threading.current_thread()
    on_stop = lambda finding: asked.append((finding.rule, threading.current_thread() is training))  # noqa: E731
    doctor = wrap(tmp_path, model, optimizer, rules=ruleset(tmp_path, "stop"), on_stop=on_stop)
    train(model, optimizer, 12, doctor)
    assert asked == [("always", True)]


def test_a_checkpoint_holds_the_state_at_the_end_of_its_step(tmp_path: Path) -> None:
    model, optimizer = net()
    doctor = wrap(tmp_path, model, optimizer, rules=ruleset(tmp_path, "checkpoint"))
    states = {}
    for number in range(1, 10):
        train(model, optimizer, 1, doctor)
        states[number] = {name: value.clone() for name, value in model.state_dict().items()}
    (path,) = (doctor.run_dir / "checkpoints").iterdir()
    saved = torch.load(path, weights_only=True)
    assert saved["step"] in (5, 6), "the step that was judged, or the next"
    assert path.name == f"step-{saved['step']:06d}-always.pt"
    assert saved["finding"]["rule"] == "always"
    assert all(torch.equal(saved["models"]["model"][name], value) for name, value in states[saved["step"]].items())
    fresh, its_optimizer = net()
    fresh.load_state_dict(saved["models"]["model"])
    its_optimizer.load_state_dict(saved["optimizers"]["sgd"])


def test_training_is_bit_identical_with_checkpoints_and_callbacks(tmp_path: Path) -> None:
    bare, its_optimizer = net()
    train(bare, its_optimizer, 12)
    model, optimizer = net()
    doctor = wrap(tmp_path, model, optimizer, rules=ruleset(tmp_path, "checkpoint"), on_finding=lambda finding: None, checkpoint_at="info")
    train(model, optimizer, 12, doctor)
    doctor.close()
    assert (doctor.run_dir / "checkpoints").exists()
    assert all(torch.equal(a, b) for a, b in zip(bare.state_dict().values(), model.state_dict().values(), strict=True))


def test_a_checkpoint_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    model, optimizer = net()
    doctor = wrap(tmp_path, model, optimizer, rules=ruleset(tmp_path, "checkpoint"))
    (doctor.run_dir / "checkpoints").write_text("a file in the way")
    train(model, optimizer, 9, doctor)
    doctor.close()
    assert [failure.probe for failure in doctor.diagnosis().probe_failures] == ["checkpoint for always"]


def test_parameters_that_are_split_over_processes_are_not_gathered(tmp_path: Path) -> None:
    model, optimizer = net()
    model[0].weight.placements = ("shard",)  # what a DTensor has
    with pytest.raises(ValueError, match="split over processes"):
        save_checkpoint(tmp_path, FINDING, 1, {"": model}, {"sgd": optimizer})


def test_an_unknown_severity_for_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown severity 'loud'"):
        wrap(tmp_path, *net(), checkpoint_at="loud")
