"""What probes hear of the loop, and when their measurements are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import nndoctor
from nndoctor.probes.base import CONTRACT, EVENTS, Measured


class Listener:
    """Writes down every event."""

    name = "listener"
    tier = CONTRACT
    signals = ("observed.heard",)
    news = False

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.collected: list[int] = []
        self.step = 0
        for event in EVENTS:
            setattr(self, event, lambda *args, event=event: self.heard.append(event))

    def attach(self, index: object) -> None: ...

    def detach(self) -> None: ...

    def begin_step(self, step: int, sampled: bool) -> None:
        self.step = step

    def collect(self) -> Mapping[str, Measured]:
        self.collected.append(self.step)
        self.news = False
        return {"observed.heard": float(len(self.heard))}

    def facts(self) -> dict[str, Any]:
        return {"listener": "was here"}


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Listener:
    made = Listener()
    monkeypatch.setattr("nndoctor.doctor.further_probes", lambda: [made])
    return made


def parts() -> tuple[nn.Module, torch.optim.Optimizer, DataLoader[Any]]:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    loader = DataLoader(TensorDataset(torch.randn(8, 3), torch.randint(2, (8,))), batch_size=4, shuffle=True)
    return model, torch.optim.SGD(model.parameters(), lr=0.1), loader


def test_a_contract_probe_hears_every_event_in_its_order(listener: Listener) -> None:
    model, optimizer, loader = parts()
    scaler = torch.amp.GradScaler("cpu")
    scheduler = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [torch.optim.lr_scheduler.ConstantLR(optimizer), torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)],
        milestones=[1],
    )
    with nndoctor.wrap(model, optimizer, loader=loader, ui="off", strict=True):
        model.load_state_dict(model.state_dict())
        batches = iter(loader)
        inputs, labels = next(batches)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        with torch.no_grad():
            model(inputs)
    heard = [event for event in listener.heard if event != "batch_planned" and not event.startswith("part_")]
    assert heard == [
        "state_loaded", "loader_started", "batch_waited", "batch_loaded", "gradients_zeroed", "forward_begins", "forward_ended", "loss_scaled",
        "loss_read", "backward_begins", "backward_ended", "gradients_unscaled", "clipped", "clipping", "scaler_stepping", "gradients_ready",
        "stepped", "step_ends", "scaler_stepped",
        "scaler_updated", "scheduler_stepped", "evaluation_begins", "evaluation_ended",
    ]  # fmt: skip
    assert set(listener.heard) == set(EVENTS) - {"scaler_refused", "loader_ended"}


@pytest.mark.parametrize("twice", ["step", "unscale_"])
def test_a_call_that_the_scaler_refuses_is_told_and_raises_as_ever(listener: Listener, twice: str) -> None:
    model, optimizer, _ = parts()
    scaler = torch.amp.GradScaler("cpu")
    with nndoctor.wrap(model, optimizer, ui="off", strict=True):
        scaler.scale(model(torch.randn(4, 3)).sum()).backward()
        getattr(scaler, twice)(optimizer)
        with pytest.raises(RuntimeError, match="since the last update"):
            getattr(scaler, twice)(optimizer)
    assert listener.heard.count("scaler_refused") == 1


def train(steps: int, **options: Any) -> nndoctor.Doctor:
    model, optimizer, _ = parts()
    with nndoctor.wrap(model, optimizer, ui="off", strict=True, **options) as doctor:
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.randn(4, 3)).square().mean().backward()
            optimizer.step()
    return doctor


def test_events_come_on_every_step_but_measurements_are_asked_for_on_sampled_ones(listener: Listener) -> None:
    train(60, cadence=16)
    assert listener.heard.count("backward_begins") == 60
    assert 55 not in listener.collected


def test_news_are_asked_for_on_the_very_step(listener: Listener) -> None:
    def on_step_55(loss: object) -> None:
        listener.news = listener.heard.count("stepped") == 54

    listener.backward_begins = on_step_55  # type: ignore[attr-defined]
    train(60, cadence=16)
    assert len([step for step in listener.collected if step > 50]) == 1


def test_what_a_probe_knows_of_the_run_is_among_the_facts(listener: Listener) -> None:
    assert train(2).diagnosis().facts["listener"] == "was here"


def test_a_probe_that_fails_on_an_event_is_dismissed_and_named(listener: Listener) -> None:
    def fails(loss: object) -> None:
        raise RuntimeError("no such thing")

    listener.backward_begins = fails  # type: ignore[attr-defined]
    model, optimizer, _ = parts()
    with nndoctor.wrap(model, optimizer, ui="off") as doctor:
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(4, 3)).square().mean().backward()
            optimizer.step()
    assert [failure.probe for failure in doctor.diagnosis().probe_failures] == ["listener"]
    assert listener.heard.count("stepped") == 0


def test_parts_of_the_loop_begin_and_end_also_when_they_raise(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer, loader = parts()
    said: list[str] = []
    listener.part_begins = lambda part: said.append(f"{part} begins")  # type: ignore[attr-defined]
    listener.part_ended = lambda part: said.append(f"{part} ended")  # type: ignore[attr-defined]
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with nndoctor.wrap(model, optimizer, loader=loader, ui="off", strict=True):
        optimizer.zero_grad()
        model(torch.randn(2, 3)).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        with pytest.raises(RuntimeError, match="does not exist"):
            torch.save({}, "/nowhere/at/all")
    parts_heard = ["zero_grad", "clipping", "clipping", "scheduler", "checkpoint"]
    assert said == [f"{part} {what}" for part in parts_heard for what in ("begins", "ended")]
