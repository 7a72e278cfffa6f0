"""Evaluations and checkpoints are noticed on every step, sampled or not, and cost the other steps nothing."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import nndoctor
from nndoctor.probes import pauses
from nndoctor.probes.pauses import PausesProbe
from nndoctor.record import RecordReader


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pauses, "perf_counter", clock)
    return clock


def evaluates(probe: PausesProbe, clock: Clock, *seconds: float) -> None:
    model = nn.Linear(1, 1)
    for passes in seconds:
        probe.evaluation_begins(model, (), {})
        clock.now += passes
        probe.evaluation_ended(model, None)
        clock.now += 1


def test_an_evaluation_lasts_from_its_first_pass_to_its_last(clock: Clock) -> None:
    probe = PausesProbe()
    evaluates(probe, clock, 10, 20, 30)
    assert not probe.news
    assert probe.facts() == {"pauses_since_step": {"evaluation": 62.0, "checkpoint": 0.0}}
    probe.backward_begins(None)
    assert probe.news
    assert probe.collect() == {"step.evaluation": 62.0, "step.checkpoint": 0.0}
    assert not probe.news
    assert probe.collect() == {"step.evaluation": 0.0, "step.checkpoint": 0.0}


def test_training_between_two_passes_is_no_evaluation(clock: Clock) -> None:
    probe = PausesProbe()
    evaluates(probe, clock, 10)
    clock.now += 500
    probe.backward_begins(None)
    clock.now += 500
    evaluates(probe, clock, 20)
    assert probe.collect()["step.evaluation"] == 30.0


def test_only_torch_save_is_a_checkpoint(clock: Clock) -> None:
    probe = PausesProbe()
    for part, seconds in (("zero_grad", 5), ("checkpoint", 7), ("scheduler", 9)):
        probe.part_begins(part)
        clock.now += seconds
        probe.part_ended(part)
    assert probe.collect()["step.checkpoint"] == 7.0


def test_on_unsampled_steps_both_are_told_on_the_very_step(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader, testing = (DataLoader(TensorDataset(torch.randn(40, 3), torch.randint(2, (40,))), batch_size=4) for _ in range(2))
    with nndoctor.wrap(model, optimizer, loader=loader, ui="off", strict=True, run_dir=tmp_path / "run", cadence=64):
        for epoch in range(9):
            for x, y in loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
            if epoch == 7:
                torch.save(model.state_dict(), io.BytesIO())
                with torch.no_grad():
                    for x, _ in testing:
                        model(x)
        torch.save(model.state_dict(), io.BytesIO())
    with RecordReader(tmp_path / "run") as reader:
        assert reader.last_step == 90  # what comes after the last step makes no step of its own
        assert reader.facts.facts["pauses_since_step"]["checkpoint"] > 0
        told = {frame.step: frame.values for frame in reader.frames() if frame.step > 64 and "step.evaluation" in frame.values}
    assert set(told) == {81}  # the first step after epoch 7
    assert 0 < told[81]["step.evaluation"][0] < told[81]["step.time"][0]
    assert 0 < told[81]["step.checkpoint"][0] < told[81]["step.time"][0]
