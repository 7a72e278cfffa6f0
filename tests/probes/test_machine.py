"""The fingerprint of a machine is that of its hardware: the same twice, another one for other hardware, and no name in it."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import nndoctor
from nndoctor.probes.machine import Busy, machine
from nndoctor.record import RecordReader


def test_a_machine_has_one_fingerprint() -> None:
    assert machine() == machine()
    assert len(machine()["fingerprint"]) == 12


def test_another_number_of_threads_is_another_machine_to_compare_with(monkeypatch: pytest.MonkeyPatch) -> None:
    before = machine()["fingerprint"]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert machine()["fingerprint"] != before


def test_nothing_tells_whose_machine_it_is() -> None:
    assert platform.node() not in str(machine().values()) or not platform.node()


def clock(*readings: float) -> Callable[[], float]:
    return iter(readings).__next__


def test_the_processor_is_as_busy_as_its_time_by_the_clock() -> None:
    busy = Busy(wall=clock(100.0, 102.0, 102.5, 102.5), processor=clock(7.0, 10.0, 10.125, 11.0))
    assert busy.look() == {"busy.processor": 1.5}
    assert busy.look() == {"busy.processor": 0.25}
    assert busy.look() == {}, "nothing can be told where no time has passed"


def test_the_accelerator_is_asked_every_few_seconds_and_never_again_where_it_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[int | Exception] = [80, 40, ModuleNotFoundError("pynvml")]

    def utilization() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "utilization", utilization)
    busy = Busy(wall=clock(0.0, 1.0, 2.0, 7.0, 13.0, 19.0), processor=clock(*range(6)))
    assert [busy.look().get("busy.accelerator") for _ in range(5)] == [0.8, None, 0.4, None, None]
    assert answers == []


def test_a_run_tells_how_busy_it_kept_the_processor(tmp_path: Path) -> None:
    model = torch.nn.Linear(64, 64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    doctor = nndoctor.wrap(model, optimizer, ui="off", run_dir=tmp_path / "run", sinks="off")
    for _ in range(30):
        optimizer.zero_grad()
        model(torch.randn(8, 64)).square().mean().backward()
        optimizer.step()
    doctor.close()
    with RecordReader(tmp_path / "run") as reader:
        told = [float(frame.values["busy.processor"][0]) for frame in reader.frames() if "busy.processor" in frame.values]
    assert len(told) >= 2
    assert all(0 < value <= 1.1 * len(os.sched_getaffinity(0)) for value in told)
