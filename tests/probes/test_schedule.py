"""The order of scheduler.step() and optimizer.step()."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau

import nndoctor
from nndoctor.probes.base import Measured
from nndoctor.probes.schedule import ScheduleProbe


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, float]]:
    """The largest value of each signal that the probe of the next doctor told."""
    probe, largest = ScheduleProbe(), dict[str, float]()
    collect = probe.collect

    def collected() -> Mapping[str, Measured]:
        measured = collect()
        for name, value in measured.items():
            largest[name] = max(largest.get(name, 0.0), float(value))  # type: ignore[arg-type]
        return measured

    monkeypatch.setattr(probe, "collect", collected)
    monkeypatch.setattr("nndoctor.doctor.further_probes", lambda: [probe])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns of the same mistake, once
        yield largest


def parts(**options: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(3, 2)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, **options)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(4, 3)).square().mean().backward()
    optimizer.step()


def told(seen: dict[str, float]) -> tuple[float, float]:
    return seen["schedule.before_first_step"], seen["schedule.before_step"]


def test_the_right_order_breaks_nothing(seen: dict[str, float]) -> None:
    model, optimizer = parts()
    scheduler = ExponentialLR(optimizer, 0.9)
    with nndoctor.wrap(model, optimizer, ui="off", strict=True):
        for _ in range(6):
            step(model, optimizer)
            scheduler.step()
    assert told(seen) == (0.0, 0.0)


def test_a_schedule_advanced_at_the_top_of_the_epoch_skips_its_first_value(seen: dict[str, float]) -> None:
    model, optimizer = parts()
    scheduler = ExponentialLR(optimizer, 0.9)
    with nndoctor.wrap(model, optimizer, ui="off", strict=True):
        for _ in range(2):
            scheduler.step()
            for _ in range(3):
                step(model, optimizer)
    assert told(seen) == (1.0, 0.0)


def test_a_schedule_wound_forward_by_a_resumed_run_is_no_breach(seen: dict[str, float]) -> None:
    model, optimizer = parts()
    scheduler = ExponentialLR(optimizer, 0.9)
    with nndoctor.wrap(model, optimizer, ui="off", strict=True):
        for _ in range(3):
            scheduler.step()
        for _ in range(3):
            step(model, optimizer)
    assert told(seen) == (0.0, 0.0)


def test_a_run_whose_weights_were_loaded_may_wind_forward_by_one(seen: dict[str, float]) -> None:
    model, optimizer = parts()
    scheduler = ExponentialLR(optimizer, 0.9)
    with nndoctor.wrap(model, optimizer, ui="off", strict=True):
        model.load_state_dict(model.state_dict())
        scheduler.step()
        step(model, optimizer)
    assert told(seen) == (0.0, 0.0)


def test_a_schedule_between_backward_and_step_is_counted(seen: dict[str, float]) -> None:
    model, optimizer = parts()
    scheduler = ExponentialLR(optimizer, 0.9)
    with nndoctor.wrap(model, optimizer, ui="off", strict=True):
        for _ in range(5):
            optimizer.zero_grad()
            model(torch.ones(4, 3)).square().mean().backward()
            scheduler.step()
            optimizer.step()
    assert seen["schedule.before_step"] == 5.0


def test_another_networks_backward_before_the_schedule_is_no_breach(seen: dict[str, float]) -> None:
    """A GAN advances both schedules at the end, after the generator's loss went through the discriminator too."""
    one, two = nn.Linear(3, 3), nn.Linear(3, 1)
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.1) for net in (one, two)]
    schedulers = [ExponentialLR(optimizer, 0.9) for optimizer in optimizers]
    with nndoctor.wrap([one, two], optimizers, ui="off", strict=True):
        for _ in range(6):
            for optimizer in reversed(optimizers):
                optimizer.zero_grad()
                two(one(torch.ones(4, 3))).square().mean().backward()
                optimizer.step()
            for scheduler in schedulers:
                scheduler.step()
    assert told(seen) == (0.0, 0.0)


def test_a_first_step_that_the_scaler_skips_is_no_breach(seen: dict[str, float]) -> None:
    model, optimizer = parts()
    scheduler = ExponentialLR(optimizer, 0.9)
    scaler = torch.amp.GradScaler("cpu")
    with nndoctor.wrap(model, optimizer, ui="off", strict=True):
        for number in range(5):
            optimizer.zero_grad()
            loss = model(torch.ones(4, 3)).square().mean() * (float("nan") if number == 0 else 1.0)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
    assert told(seen) == (0.0, 0.0)


def test_a_schedule_that_waits_for_a_metric_is_not_judged(seen: dict[str, float]) -> None:
    model, optimizer = parts()
    scheduler = ReduceLROnPlateau(optimizer)
    with nndoctor.wrap(model, optimizer, ui="off", strict=True):
        scheduler.step(1.0)
        for _ in range(3):
            step(model, optimizer)
    assert told(seen) == (0.0, 0.0)
