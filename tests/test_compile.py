"""A compiled model is left whole: no graph break, one compilation more at most, the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import nn

import nndoctor
from nndoctor.doctor import attached_doctors
from nndoctor.record import RecordReader

X = torch.linspace(-1, 1, 32 * 8).reshape(32, 8)
Y = torch.arange(32) % 3
Order = Callable[[nn.Module, torch.optim.Optimizer, Path], tuple[Callable[..., Any], nndoctor.Doctor]]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    for doctor in attached_doctors():
        doctor.close()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()  # for later tests nothing was compiled in this process


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="aot_eager", fullgraph=True)


def wrap(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> nndoctor.Doctor:
    return nndoctor.wrap(model, optimizer, run_dir=folder, ui="off", strict=True)


def wrapped_first(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> tuple[Any, nndoctor.Doctor]:
    doctor = wrap(model, optimizer, folder)
    return compiled(model), doctor


def compiled_first(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> tuple[Any, nndoctor.Doctor]:
    fast = compiled(model)
    return fast, wrap(fast, optimizer, folder)


def inner_wrapped(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> tuple[Any, nndoctor.Doctor]:
    fast = compiled(model)
    return fast, wrap(model, optimizer, folder)


def train(order: Order | None, folder: Path) -> tuple[list[float], nndoctor.Doctor | None]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    forward, doctor = (compiled(model), None) if order is None else order(model, optimizer, folder)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(forward(X), Y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, doctor


@pytest.mark.parametrize("order", [wrapped_first, compiled_first, inner_wrapped])
def test_a_model_compiled_as_one_graph_stays_one_graph(order: Order, tmp_path: Path) -> None:
    losses, doctor = train(order, tmp_path / "run")
    assert doctor is not None
    counters = torch._dynamo.utils.counters
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] <= 2
    doctor.close()
    assert doctor.diagnosis().probe_failures == ()
    assert any("torch.compile" in sentence for sentence in doctor.facts["unseen"])
    torch._dynamo.reset()
    assert losses == train(None, tmp_path)[0]


def train_with_compiled_step(folder: Path | None) -> tuple[list[float], nndoctor.Doctor | None, int]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    doctor = None if folder is None else nndoctor.wrap(model, optimizer, run_dir=folder, ui="off", strict=True, cadence=4)
    step = torch.compile(optimizer.step, backend="aot_eager")
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(X), Y)
        loss.backward()
        step()
        losses.append(float(loss.detach()))
    return losses, doctor, torch._dynamo.utils.counters["stats"]["unique_graphs"]


def test_a_compiled_optimizer_step_is_one_graph_and_its_updates_are_measured(tmp_path: Path) -> None:
    losses, doctor, graphs = train_with_compiled_step(tmp_path / "run")
    assert doctor is not None
    assert graphs == 1
    doctor.close()
    assert doctor.step == 30
    with RecordReader(tmp_path / "run") as reader:
        late = {name for frame in reader.frames() if frame.step > 15 for name in frame.values}
    assert {"update.ratio", "grad.norm", "param.adam.m_norm"} <= late
    torch._dynamo.reset()
    assert losses == train_with_compiled_step(None)[0]


def test_what_was_wrapped_before_it_was_compiled_says_that_passes_are_not_timed(tmp_path: Path) -> None:
    _, first = train(wrapped_first, tmp_path / "first")
    torch._dynamo.reset()
    _, second = train(compiled_first, tmp_path / "second")
    assert first is not None
    assert second is not None
    assert [any("times of whole passes" in sentence for sentence in d.facts["unseen"]) for d in (first, second)] == [True, False]


@pytest.mark.parametrize("order", [wrapped_first, compiled_first])
def test_subscribers_of_a_compiled_model_get_what_lies_outside_and_the_rest_is_said(order: Order, tmp_path: Path) -> None:
    @nndoctor.metric
    def inside(activations: torch.Tensor) -> torch.Tensor:
        return activations.mean()

    @nndoctor.metric
    def outside(weights: torch.Tensor, weight_updates: torch.Tensor) -> torch.Tensor:
        return weight_updates.norm() / weights.norm()

    def subscribed(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> tuple[Callable[..., Any], nndoctor.Doctor]:
        forward, doctor = order(model, optimizer, folder)
        doctor.subscribe(inside, outside)
        return forward, doctor

    losses, doctor = train(subscribed, tmp_path / "run")
    counters = torch._dynamo.utils.counters
    assert not counters["graph_break"]
    assert doctor is not None
    doctor.close()
    assert doctor.diagnosis().probe_failures == ()
    told = dict(line.split(": ") for line in doctor.facts["subscribers"])
    assert told["outside"] == "120 bundles"
    said = [sentence for sentence in doctor.facts["unseen"] if "inside got no activations: what is inside of code that torch.compile has compiled" in sentence]
    assert said, (doctor.facts["unseen"], told)
    assert losses == train(None, tmp_path)[0]
