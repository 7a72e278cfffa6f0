"""A compiled model is left whole: no graph break, no compilation more, the same numbers; on request it is looked into."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import nn

import nndoctor
from nndoctor.doctor import attached_doctors
from nndoctor.interpose import CompilerWatch
from nndoctor.probes.base import Hook
from nndoctor.probes.inside import InsideActivationProbe, operator
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


def compiled_in_a_function(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> tuple[Any, nndoctor.Doctor]:
    return torch.compile(lambda x: model(x), backend="aot_eager", fullgraph=True), wrap(model, optimizer, folder)


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
    assert counters["stats"]["unique_graphs"] == 1
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


def test_passes_of_a_container_are_timed_unless_a_function_around_it_was_compiled_which_is_said(tmp_path: Path) -> None:
    said = []
    for name, order in (("first", wrapped_first), ("function", compiled_in_a_function)):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        _, doctor = train(order, tmp_path / name)
        assert doctor is not None
        doctor.close()
        timed = {step for step in measured(tmp_path / name, "step.forward") if step > 10}
        told = any("no forward pass was seen" in sentence for sentence in doctor.facts["unseen"])
        said.append((bool(timed), told))
        assert graphs() == 1
    assert said == [(True, False), (False, True)]


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


# -- looking inside, on request


class Net(nn.Module):
    """A layer that is dead, one that makes a value infinite, a dropout that does nothing and a function."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.second = nn.Linear(8, 16), nn.ReLU(inplace=True), nn.Linear(16, 3)
        with torch.no_grad():
            self.first.bias[:4] = -100.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.relu(self.first(x)))  # type: ignore[no-any-return]


Compile = Callable[[nn.Module], Any]


def run(folder: Path | None, compiling: Compile, steps: int = 24, first: str = "wrap", **settings: Any) -> tuple[list[float], Any, nn.Module]:
    """Losses, doctor and model of a run with cadence 4, every step up to 8 of which is measured."""
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    fast = compiling(model) if first == "compile" else None
    doctor = None
    if folder is not None:
        doctor = nndoctor.wrap(fast if fast is not None else model, optimizer, run_dir=folder, ui="off", strict=True, cadence=4, **settings)
        doctor._budget.dense = 8
    fast = compiling(model) if fast is None else fast
    losses = []
    for step in range(steps):
        if step % 8 == 6:
            with torch.no_grad():
                fast(X)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(fast(X), Y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, doctor, model


def measured(folder: Path, signal: str) -> dict[int, list[float]]:
    with RecordReader(folder) as reader:
        return {frame.step: frame.values[signal].tolist() for frame in reader.frames() if signal in frame.values}


def graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def test_activations_inside_of_a_graph_are_those_of_the_eager_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = []
    receive = InsideActivationProbe.receive
    monkeypatch.setattr(InsideActivationProbe, "receive", lambda self, layer, seen: (heard.append(layer), receive(self, layer, seen)))
    bare, _, _ = run(None, compiled)
    alone = graphs()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    losses, doctor, model = run(tmp_path / "compiled", compiled, compiled_activations=True)
    assert losses == bare
    assert graphs() == alone == 2, "one for training, one for evaluation"
    assert not torch._dynamo.utils.counters["graph_break"]
    assert len(heard) == 12 * 3, "three layers on steps 1 to 8, 12, 16, 20, 24; none in evaluations and on other steps"
    doctor.close()
    assert not any(module._forward_hooks for module in model.modules())
    run(tmp_path / "eager", lambda model: model)[1].close()
    for signal in ("act.mean", "act.std", "act.rms", "act.max", "act.nonfinite", "act.dead_fraction", "layer.calls"):
        inside, outside = measured(tmp_path / "compiled", signal), measured(tmp_path / "eager", signal)
        late = [step for step in outside if step > 8]
        assert late == [12, 16, 20, 24]
        for step in late:
            assert inside[step] == pytest.approx(outside[step], rel=1e-5, nan_ok=True), (signal, step)
    assert measured(tmp_path / "compiled", "act.dead_fraction")[24][1] >= 0.25
    assert not any("activations and times" in sentence for sentence in doctor.facts["unseen"])


def test_whole_passes_and_parts_of_the_loop_are_timed_where_a_model_was_wrapped_first(tmp_path: Path) -> None:
    doctor = run(tmp_path / "run", compiled)[1]
    doctor.close()
    for signal in ("step.forward", "step.backward", "step.optimizer", "tile.span", "tile.backward_other"):
        assert set(measured(tmp_path / "run", signal)) >= {12, 16, 20, 24}, signal
    assert not measured(tmp_path / "run", "time.forward")
    assert not any("no forward pass was seen" in sentence for sentence in doctor.facts["unseen"])


def test_what_was_compiled_before_the_doctor_came_is_listed(tmp_path: Path) -> None:
    def called(model: nn.Module) -> Any:
        fast = compiled(model)
        fast(X).sum().backward()
        model.zero_grad()
        return fast

    before = len(run(None, called)[0])
    doctor = run(tmp_path / "run", called, first="compile", compiled_activations=True)[1]
    doctor.close()
    assert before == doctor.step
    assert not measured(tmp_path / "run", "act.std")
    assert any("wrap the model before its first call" in sentence for sentence in doctor.facts["unseen"])


def test_parts_that_share_their_compiled_code_keep_sharing_it(tmp_path: Path) -> None:
    def parts() -> nn.Sequential:
        model = nn.Sequential(*(Block() for _ in range(4)), nn.Linear(8, 3))
        for block in model[:4]:
            block.compile(backend="aot_eager", fullgraph=True)
        return model

    found = []
    for settings in (None, {}, {"compiled_activations": True}):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        torch.manual_seed(0)
        model = parts()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
        doctor = None
        if settings is not None:
            doctor = nndoctor.wrap(model, optimizer, run_dir=tmp_path / str(len(found)), ui="off", strict=True, **settings)
        for _ in range(6):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(X), Y).backward()
            optimizer.step()
        found.append((graphs(), [param.sum().item() for param in model.parameters()]))
    assert found[0] == found[1] == found[2]
    assert doctor is not None
    doctor.close()
    assert any("compiled one by one" in sentence for sentence in doctor.facts["unseen"])


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.inner(x))


def test_a_model_with_hooks_for_compiled_code_is_saved_and_copied_without_them(tmp_path: Path) -> None:
    model = Net()
    with nndoctor.wrap(model, torch.optim.SGD(model.parameters()), run_dir=tmp_path / "run", ui="off", compiled_activations=True):
        copied = copy.deepcopy(model)
        stored = pickle.dumps(model)
    assert b"nndoctor.probes" not in stored
    assert not any(isinstance(hook, Hook) for module in copied.modules() for hook in module._forward_hooks.values())
    assert torch.equal(copied(X), model(X))


def test_an_exported_model_is_without_the_operator(tmp_path: Path) -> None:
    model = Net()
    with nndoctor.wrap(model, torch.optim.SGD(model.parameters()), run_dir=tmp_path / "run", ui="off", compiled_activations=True):
        exported = torch.export.export(model, (X,))
    assert not any("nndoctor" in str(node.target) for node in exported.graph.nodes)


def test_the_real_compiler_keeps_the_operator_and_its_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)  # else it starts processes, which takes longer than to compile
    run(tmp_path / "inductor", lambda model: torch.compile(model, fullgraph=True), steps=4, compiled_activations=True)[1].close()
    run(tmp_path / "eager", lambda model: model, steps=4)[1].close()
    for signal in ("act.std", "act.max", "act.dead_samples"):
        inside, outside = measured(tmp_path / "inductor", signal)[4], measured(tmp_path / "eager", signal)[4]
        assert inside == pytest.approx(outside, rel=1e-3, nan_ok=True), signal


def test_no_python_of_ours_can_get_into_a_cuda_graph() -> None:
    operator()
    tags = torch.ops.nndoctor.look.default.tags
    assert getattr(torch.Tag, "cudagraph_unsafe", None) in (None, *tags)


# -- eager steps, on request


def test_layers_are_timed_on_the_eager_steps_that_were_asked_for_and_on_no_others(tmp_path: Path) -> None:
    bare, _, _ = run(None, compiled)
    alone = graphs()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    losses, doctor, model = run(tmp_path / "run", compiled, first="compile", eager_every=6)
    assert losses == pytest.approx(bare, rel=1e-5)
    assert graphs() == alone
    doctor.close()
    assert list(measured(tmp_path / "run", "time.forward")) == [6, 12, 18, 24]
    assert list(measured(tmp_path / "run", "act.std")) == [6, 12, 18, 24]
    assert set(measured(tmp_path / "run", "tile.span")) >= {8, 12, 16, 20, 24}
    assert any("4 steps that ran uncompiled" in sentence for sentence in doctor.facts["unseen"])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_after_an_eager_step_compiled_code_runs_again(tmp_path: Path) -> None:
    calls = []

    def counting(graph: Any, inputs: Any) -> Any:
        return lambda *args: (calls.append(len(calls)), graph.forward(*args))[1]

    run(tmp_path / "run", lambda model: torch.compile(model, backend=counting), eager_every=6)[1].close()
    assert len(calls) == 24 + 3 - 4, "24 steps and 3 evaluations, without the 4 eager steps"


def test_eager_steps_need_a_number_of_two_or_more() -> None:
    model = Net()
    with pytest.raises(ValueError, match="eager_every is a number of steps, 2 or more; got 1"):
        nndoctor.wrap(model, torch.optim.SGD(model.parameters()), ui="off", eager_every=1)


# -- the moment before something is compiled


def test_a_compiler_that_tells_nothing_costs_one_compilation_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare, _, _ = run(None, compiled)
    alone = graphs()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(CompilerWatch, "_callbacks", property(lambda self: []))
    losses, doctor, _ = run(tmp_path / "run", compiled)
    doctor.close()
    assert losses == bare
    assert graphs() == alone + 1
    assert not torch._dynamo.utils.counters["graph_break"]


def test_the_watch_is_told_before_a_function_is_compiled_and_not_after_it_was_stopped() -> None:
    told = []
    watch = CompilerWatch(lambda: told.append(graphs()))
    assert watch.watches
    torch.compile(lambda x: x + 1, backend="eager")(X)
    assert told
    assert set(told) == {0}
    watch.stop()
    watch.stop()
    torch.compile(lambda x: x + 2, backend="eager")(X)
    assert 1 not in told
    again = CompilerWatch(lambda: None)
    torch._dynamo.reset()
    assert not again.watches
