"""Layer times of every step: all there, adding up, for the record alone, and the training untouched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import nndoctor
from nndoctor.record import RecordReader
from nndoctor.signals import Frame
from nndoctor.tiles import (
    BACKWARD,
    BACKWARD_OTHER,
    DOCTOR,
    FIRST_GROUP,
    FORWARD,
    LAYER_SIGNALS,
    LOSS,
    NAMED,
    REST,
    Stamps,
    signals_of,
    signals_of_many,
)

STEPS = 140
SIGNALS = (*LAYER_SIGNALS, "time.optimizer", *(signal for signal, _ in NAMED.values()))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 1))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = STEPS) -> list[float]:
    torch.manual_seed(1)
    losses = []
    for _ in range(steps):
        inputs = torch.randn(16, 6)
        optimizer.zero_grad()
        loss = (model(inputs) - inputs.sum(dim=1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def frames_of(folder: Path) -> list[Frame]:
    with RecordReader(folder) as reader:
        return list(reader.frames())


def wrapped(tmp_path: Path, every: bool, loop: Callable[[nn.Module, torch.optim.Optimizer], Any] = train, **options: Any) -> tuple[Any, list[Frame]]:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    folder = tmp_path / f"run-{every}"
    with nndoctor.wrap(model, optimizer, ui="off", strict=True, run_dir=folder, time_every_step=every, cadence=32, **options):
        losses = loop(model, optimizer)
    return losses, frames_of(folder)


def test_every_step_has_tiles_that_add_up_to_it(tmp_path: Path) -> None:
    _, frames = wrapped(tmp_path, every=True)
    timed = [frame for frame in frames if "tile.span" in frame.values]
    assert [frame.step for frame in timed] == list(range(1, STEPS + 1))
    for frame in timed:
        total = sum(float(np.nansum(frame.values[name])) for name in SIGNALS if name in frame.values)
        assert total == pytest.approx(float(frame.values["tile.span"][0]), rel=1e-4)
        if frame.step > 1:
            assert float(frame.values["tile.span"][0]) == pytest.approx(float(frame.values["step.time"][0]), rel=0.5)
    quiet = next(frame for frame in timed if frame.step == 100)
    assert np.isfinite(quiet.values["time.forward"]).sum() == 4
    assert np.isfinite(quiet.values["time.backward"]).sum() == 4
    assert {"tile.zero_grad", "tile.loss", "tile.forward_other"} <= {name for name in quiet.values if quiet.values[name][0] > 0}
    assert quiet.values["time.optimizer"][0] > 0


def test_the_training_stays_what_it_is_to_the_bit_and_nothing_else_is_measured_more_often(tmp_path: Path) -> None:
    model = net()
    bare = train(model, torch.optim.SGD(model.parameters(), lr=0.05))
    with_times, frames = wrapped(tmp_path, every=True)
    without, plain = wrapped(tmp_path, every=False)
    assert bare == with_times == without
    by_the_clock = {*SIGNALS, "tile.span", "busy.processor", "memory.process"}
    others, before = ([sorted(frame.values.keys() - by_the_clock) for frame in each] for each in (frames, plain))
    assert others == before
    assert sum("tile.span" in frame.values for frame in plain) < 60


def test_the_rules_judge_the_sampled_steps_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[Frame] = []
    original = nndoctor.rules.Judge.feed

    def feed(judge: Any, frame: Frame) -> bool:
        fed.append(frame)
        return original(judge, frame)

    monkeypatch.setattr(nndoctor.rules.Judge, "feed", feed)
    wrapped(tmp_path, every=True)
    assert [frame.step for frame in fed if "tile.span" in frame.values] == [*range(1, 51), 64, 96, 128]


def test_a_hook_that_comes_between_two_steps_is_not_the_layers_time(tmp_path: Path) -> None:
    def loop(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        train(model, optimizer, 70)
        model[0].register_forward_hook(slow)
        train(model, optimizer, 20)

    def slow(module: nn.Module, args: object, output: object) -> None:
        for _ in range(20):
            torch.ones(200, 200).mm(torch.ones(200, 200))

    _, frames = wrapped(tmp_path, every=True, loop=loop)
    median = {when: np.median([frame.values["time.forward"][0] for frame in frames if frame.step in when]) for when in (range(55, 70), range(75, 90))}
    other = {when: np.median([frame.values["tile.doctor"][0] for frame in frames if frame.step in when]) for when in median}
    early, late = median
    assert median[late] < 5 * median[early]
    assert other[late] > other[early]


def test_a_data_loader_and_an_evaluation_have_their_tiles_on_every_step(tmp_path: Path) -> None:
    data = TensorDataset(torch.randn(64, 6), torch.randn(64, 1))

    def loop(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        loader, held_out = DataLoader(data, batch_size=2), DataLoader(data, batch_size=32)
        for _ in range(3):
            for inputs, targets in loader:
                optimizer.zero_grad()
                (model(inputs) - targets).square().mean().backward()
                optimizer.step()
            with torch.no_grad():
                for inputs, _ in held_out:
                    model(inputs)

    _, frames = wrapped(tmp_path, every=True, loop=loop)
    timed = {frame.step: frame.values for frame in frames if "tile.span" in frame.values}
    assert sorted(timed) == list(range(1, 97))
    assert all(values["tile.data_wait"][0] > 0 for step, values in timed.items() if step > 52)
    assert timed[65]["tile.evaluation"][0] > 0
    assert timed[66]["tile.evaluation"][0] == 0


def test_several_optimizers_are_timed_on_every_step_too(tmp_path: Path) -> None:
    model, other = net(), net()
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.01) for each in (model, other)]
    with nndoctor.wrap([model, other], optimizers, ui="off", strict=True, run_dir=tmp_path / "run", time_every_step=True, cadence=32):
        for _ in range(80):
            for each, optimizer in zip((model, other), optimizers, strict=True):
                optimizer.zero_grad()
                each(torch.randn(4, 6)).square().mean().backward()
                optimizer.step()
    timed = [frame.step for frame in frames_of(tmp_path / "run") if "tile.span" in frame.values]
    assert timed == list(range(1, 81))


def test_a_step_that_must_be_told_at_once_keeps_its_times(tmp_path: Path) -> None:
    def loop(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        train(model, optimizer, 70)
        with torch.no_grad():
            model[3].weight.mul_(1000)  # the loss leaps: the quiet steps end here
        train(model, optimizer, 10)

    _, frames = wrapped(tmp_path, every=True, loop=loop)
    assert [frame.step for frame in frames if "tile.span" in frame.values] == list(range(1, 81))


def test_a_probe_that_fails_takes_its_times_along_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nndoctor.probes.layer_times import LayerTimesProbe

    original = LayerTimesProbe.begin_step

    def begin_step(probe: Any, step: int, sampled: bool) -> None:
        if step == 60:
            raise RuntimeError("out of time")
        original(probe, step, sampled)

    monkeypatch.setattr(LayerTimesProbe, "begin_step", begin_step)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with nndoctor.wrap(model, optimizer, ui="off", run_dir=tmp_path / "run", time_every_step=True, cadence=32) as doctor:
        losses = train(model, optimizer)
    again = net()
    assert losses == train(again, torch.optim.SGD(again.parameters(), lr=0.05))
    assert [failure.probe for failure in doctor.diagnosis().probe_failures] == ["layer times"]
    frames = frames_of(tmp_path / "run")
    assert max(frame.step for frame in frames if "time.forward" in frame.values) == 59
    assert sum("loss" in frame.values for frame in frames) == STEPS


def stamps(labels: Sequence[int], *times: int) -> Stamps:
    return Stamps(list(times), list(labels))


def test_many_steps_at_once_say_what_each_says_by_itself() -> None:
    labels = [REST, 3 * 1 + FORWARD, DOCTOR, LOSS, 3 * 1 + BACKWARD, BACKWARD_OTHER, 3 * 0 + BACKWARD, FIRST_GROUP, REST, REST]
    steps = [
        stamps(labels, *range(0, 1000, 100)),
        stamps(labels, 5, 7, 11, 400, 1000, 1700, 1900, 3000, 9000, 12000),
        stamps([REST, LOSS, REST], 10, 20, 70),
        stamps(labels, *range(10)),
    ]
    for found, each in zip(signals_of_many(steps, 3, 1), steps, strict=True):
        alone = signals_of(each.tiles(), 3, 1)
        assert sorted(found) == sorted(alone)
        for name, values in alone.items():
            np.testing.assert_array_equal(found[name], np.atleast_1d(np.asarray(values, dtype=np.float32)), err_msg=name)
