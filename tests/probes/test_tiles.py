"""A whole step under the doctor: each part of the loop gets its own tile, and the tiles are the step.

The clock of the stamps is moved by hand by the very parts, so every tile is known.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad
from torch.utils.data import DataLoader, Dataset

import nndoctor
from nndoctor import tiles
from nndoctor.probes import layer_times
from nndoctor.record import RecordReader
from nndoctor.signals import Frame
from nndoctor.tiles import LAYER_SIGNALS, NAMED

SECOND = 1_000_000_000
SIGNALS = (*LAYER_SIGNALS, "time.optimizer", *(signal for signal, _ in NAMED.values()))


class Clock:
    """Stands still unless moved."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def works(self, seconds: int) -> None:
        self.now += seconds * SECOND


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (layer_times, tiles):
        monkeypatch.setattr(module, "perf_counter_ns", clock)
    return clock


class Work(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, clock: Clock, forward: int, backward: int) -> torch.Tensor:
        ctx.clock, ctx.seconds = clock, backward
        clock.works(forward)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        ctx.clock.works(ctx.seconds)
        return gradient, None, None, None


class Worker(nn.Module):
    def __init__(self, clock: Clock, forward: int, backward: int) -> None:
        super().__init__()
        self.clock, self.times = clock, (forward, backward)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Work.apply(x, self.clock, *self.times)  # type: ignore[no-any-return]


class SlowSGD(torch.optim.SGD):
    """Takes 100 seconds for its first group, 200 for its second."""

    clock: Clock

    def _init_group(self, group: Any, *args: Any, **kwargs: Any) -> Any:
        result = super()._init_group(group, *args, **kwargs)
        self.clock.works(100 if group is self.param_groups[0] else 200)
        return result

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)


class Numbers(Dataset[Any]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.full((2,), float(index)), torch.tensor(index % 2)


def net(clock: Clock) -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), Worker(clock, 3, 5), nn.Linear(2, 2))


@pytest.fixture
def train(clock: Clock, tmp_path: Path) -> Callable[..., list[Frame]]:
    def run(model: nn.Module, optimizer: torch.optim.Optimizer, body: Callable[[], None], **options: Any) -> list[Frame]:
        with nndoctor.wrap(model, optimizer, ui="off", strict=True, run_dir=tmp_path / "run", cadence=1, **options):
            body()
        with RecordReader(tmp_path / "run") as reader:
            return [frame for frame in reader.frames() if "tile.span" in frame.values]

    return run


def total(frame: Frame) -> float:
    return float(sum(np.nansum(frame.values[name], dtype=np.float64) for name in SIGNALS if name in frame.values))


def tile(frame: Frame, name: str) -> float:
    return float(frame.values[f"tile.{name}"][0])


def test_every_part_of_a_step_has_its_own_tile(clock: Clock, train: Callable[..., list[Frame]], monkeypatch: pytest.MonkeyPatch) -> None:
    def norm(*args: Any, **kwargs: Any) -> Any:
        clock.works(7)
        return original(*args, **kwargs)

    original = clip_grad._get_total_norm
    monkeypatch.setattr(clip_grad, "_get_total_norm", norm)
    model = net(clock)
    optimizer = SlowSGD([{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.1}], lr=0.1)
    optimizer.clock = clock
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: clock.works(11) or 1.0)

    class Slow(io.BytesIO):
        def write(self, data: Any) -> int:
            clock.now += SECOND
            return super().write(data)

    def body() -> None:
        for _ in range(3):
            clock.works(13)  # logging and the like
            optimizer.zero_grad()
            out = model(torch.randn(4, 2))
            clock.works(17)
            loss = out.square().mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            torch.save(model.state_dict(), Slow())

    frames = train(model, optimizer, body)
    last = frames[-1]
    assert tile(last, "rest") == 13
    assert tile(last, "loss") == 17
    assert tile(last, "clipping") == 7
    assert tile(last, "scheduler") == 2 * 11  # one per group
    assert tile(last, "checkpoint") > 0
    np.testing.assert_allclose(last.values["time.optimizer"], [100, 200])
    assert last.values["time.forward"][1] == 3
    assert last.values["time.backward"][1] == 5
    for frame in frames:
        assert total(frame) == pytest.approx(tile(frame, "span"), rel=1e-6)


def test_on_the_first_step_groups_are_not_told_apart(clock: Clock, train: Callable[..., list[Frame]]) -> None:
    model = net(clock)
    optimizer = SlowSGD([{"params": model[0].parameters()}, {"params": model[2].parameters()}], lr=0.1)
    optimizer.clock = clock

    def body() -> None:
        for _ in range(2):
            model(torch.randn(4, 2)).square().mean().backward()
            optimizer.step()

    first, second = train(model, optimizer, body)
    assert tile(first, "optimizer") == 300
    assert "time.optimizer" not in first.values
    assert tile(second, "optimizer") == 0
    assert "_init_group" not in vars(optimizer)


def test_an_optimizer_that_tells_no_groups_has_one_tile(clock: Clock, train: Callable[..., list[Frame]]) -> None:
    class Own(torch.optim.Optimizer):
        def step(self, closure: Any = None) -> None:
            clock.works(9)

    model = net(clock)
    optimizer = Own([{"params": model[0].parameters()}, {"params": model[2].parameters()}], {"lr": 0.1})

    def body() -> None:
        for _ in range(2):
            model(torch.randn(4, 2)).square().mean().backward()
            optimizer.step()

    assert [tile(frame, "optimizer") for frame in train(model, optimizer, body)] == [9, 9]


def test_waiting_for_data_and_evaluation_are_told_apart(clock: Clock, train: Callable[..., list[Frame]], monkeypatch: pytest.MonkeyPatch) -> None:
    model = net(clock)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    training, testing = DataLoader(Numbers(), batch_size=2), DataLoader(Numbers(), batch_size=3)
    waited: list[float] = []
    since = layer_times.Stamps.stamp_since
    monkeypatch.setattr(layer_times.Stamps, "stamp_since", lambda stamps, label, ns: (waited.append(label), clock.works(2), since(stamps, label, 2 * SECOND)))

    def body() -> None:
        for x, y in training:
            clock.works(4)  # preparing the batch
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            if optimizer.param_groups[0]["lr"] == 0.1:
                with torch.no_grad():
                    for x, _ in testing:
                        model(x)
                        clock.works(30)
            optimizer.param_groups[0]["lr"] = 0.2

    frames = train(model, optimizer, body, loader=training)
    first, second, third = frames
    assert [tile(frame, "prepare") for frame in frames] == [4, 4, 4]
    assert tile(second, "data_wait") == tile(third, "data_wait") == 2
    assert tile(second, "evaluation") == 2 * (2 + 3 + 30)  # two batches: waiting, the forward pass, what follows it
    assert tile(third, "evaluation") == tile(first, "evaluation") == 0
    assert np.nansum(second.values["time.forward"]) == 3


def test_a_batch_that_changes_its_device_was_moved(clock: Clock, train: Callable[..., list[Frame]]) -> None:
    """The device ``meta`` stands for an accelerator."""
    model = net(clock)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    training = DataLoader(Numbers(), batch_size=3)
    probe = layer_times.LayerTimesProbe()
    probe.attach(nndoctor.discovery.ModelIndex(model))
    probe.begin_step(1, True)
    probe.batch_waited(0.0, True)
    x, _ = next(iter(training))
    probe.batch_loaded(training, (x, None), True)
    clock.works(6)
    probe.part_begins("zero_grad")
    clock.works(1)
    probe.part_ended("zero_grad")
    clock.works(2)
    probe.opening.forward_begins(model, (x.to("meta"),), {})
    assert optimizer is not None
    probe.collect()
    assert probe.tiles is not None
    assert probe.tiles.rest["host to device"] == 8 * SECOND
    assert probe.tiles.rest["zero_grad"] == SECOND
    assert "batch preparation" not in probe.tiles.rest


def test_other_probes_are_the_doctors_tile_and_not_a_layers(clock: Clock, train: Callable[..., list[Frame]], monkeypatch: pytest.MonkeyPatch) -> None:
    from nndoctor.probes.activations import ActivationProbe

    looked = ActivationProbe._layer_ended

    def slow(*args: Any, **kwargs: Any) -> None:
        clock.works(1000)
        looked(*args, **kwargs)

    monkeypatch.setattr(ActivationProbe, "_layer_ended", slow)
    model = net(clock)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def body() -> None:
        model(torch.randn(4, 2)).square().mean().backward()
        optimizer.step()

    frame, *_ = train(model, optimizer, body)
    assert tile(frame, "doctor") == 3000
    assert np.nansum(frame.values["time.forward"]) == 3
    assert total(frame) == pytest.approx(tile(frame, "span"), rel=1e-6)


def test_a_pass_without_gradients_inside_of_a_step_does_not_turn_the_rest_into_evaluation(clock: Clock, train: Callable[..., list[Frame]]) -> None:
    model = net(clock)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def body() -> None:
        for _ in range(2):
            out = model(torch.randn(4, 2))
            with torch.no_grad():
                model(torch.randn(4, 2))
            clock.works(17)
            out.square().mean().backward()
            optimizer.step()

    for frame in train(model, optimizer, body):
        assert tile(frame, "loss") == 17
        assert tile(frame, "evaluation") == 3


def test_a_gradient_scalers_work_is_not_the_optimizers(clock: Clock, train: Callable[..., list[Frame]], monkeypatch: pytest.MonkeyPatch) -> None:
    scaler_class = torch.amp.GradScaler
    unscale = scaler_class._unscale_grads_

    def slow(*args: Any, **kwargs: Any) -> Any:
        clock.works(8)
        return unscale(*args, **kwargs)

    monkeypatch.setattr(scaler_class, "_unscale_grads_", slow)
    model = net(clock)
    optimizer = SlowSGD(model.parameters(), lr=0.1)
    optimizer.clock = clock
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)

    def body() -> None:
        for _ in range(2):
            scaler.scale(model(torch.randn(4, 2)).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()

    for frame in train(model, optimizer, body):
        assert tile(frame, "scaler") == 8
        assert frame.values["time.optimizer"] == [100]
