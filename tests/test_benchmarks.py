"""The scripts in ``benchmarks/`` that hold a bound: run small, so that a claim of the docs cannot rot."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Imports a script of ``benchmarks/``, which is no package."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    known = set(sys.modules)
    yield import_module
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(REPOSITORY / "benchmarks")):
            del sys.modules[name]


# -- what a sketch does not see


def small_job(script: Callable[[str], Any]) -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 160), nn.Tanh(), nn.Linear(160, 64), nn.Tanh(), nn.Linear(64, 4))
    batches = [(torch.randn(32, 64), torch.randint(4, (32,))) for _ in range(8)]
    return script("workloads").Job(model, torch.optim.Adam(model.parameters(), lr=1e-3), nn.CrossEntropyLoss(), batches)


def test_statistics_from_sketches_are_near_those_of_all_elements(script: Callable[[str], Any]) -> None:
    errors = script("sketch_accuracy").compare(small_job(script), phases=2)
    for name, bound in (("param.weight.norm", 0.06), ("param.update.ratio", 0.1), ("param.grad.var", 0.02), ("param.adam.m_norm", 0.15)):
        assert errors[name].values >= 40
        assert 0 < errors[name].p90 < bound, (name, errors[name])


def test_a_sketch_that_finds_nothing_errs_by_everything(script: Callable[[str], Any]) -> None:
    accuracy = script("sketch_accuracy")
    nan, one = torch.tensor([torch.nan]).numpy(), torch.tensor([1.0]).numpy()
    assert accuracy.differences(accuracy.RELATIVE, nan, one, one) == [1.0]
    assert accuracy.differences(accuracy.RELATIVE, one, nan, one) == []
    assert accuracy.differences(accuracy.IN_DEVIATIONS, 0 * one, one, 4 * one) == [0.5]


# -- compiled code


@pytest.mark.parametrize("title", ["dynamic, batches of several sizes", "checkpointing inside, reentrant"])
def test_compiled_code_gets_no_break_and_no_graph_more(script: Callable[[str], Any], title: str) -> None:
    matrix = script("compile_matrix")
    (case,) = (case for case in matrix.CASES if case.title == title)
    outcome = matrix.examine(case)
    assert (outcome.breaks, outcome.graphs, outcome.same_losses, outcome.failures) == (0, 0, True, [])
    assert outcome.missing == ("activations", "layer times")
    assert outcome.listed


# -- the gate


def test_the_gate_trips_beyond_its_margin_and_not_for_noise(script: Callable[[str], Any]) -> None:
    gate = script("gate")
    reference = {"lenet": 0.02, "mlp60": 0.04}
    assert gate.compare({"lenet": 0.039, "mlp60": 0.02, "new": 9.0}, reference) == []
    (sentence,) = gate.compare({"lenet": 0.041, "mlp60": 0.04}, reference)
    assert "lenet" in sentence
    assert "4.10 %" in sentence


def test_the_gate_measures_a_share_of_the_step(script: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    gate = script("gate")
    monkeypatch.setattr(gate, "SETTLED", 4)
    monkeypatch.setattr(gate, "STEPS", 8)
    assert gate.own_share(lambda: script("workloads").mlp(3, 8, batch=4)) > 0


def test_the_gate_measures_again_what_one_busy_moment_made_dear(script: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    gate = script("gate")
    shares = iter([0.09, 0.08, 0.07, 0.06, 0.03, 0.02])
    monkeypatch.setattr(gate, "own_share", lambda build: next(shares))
    assert gate.least_share(list, 0.02) == 0.03
    monkeypatch.setattr(gate, "own_share", lambda build: 0.05)  # dearer every time
    assert gate.compare({"lenet": gate.least_share(list, 0.02)}, {"lenet": 0.02})


# -- long runs


def test_a_simulated_run_brings_every_layer_on_measured_steps_only(script: Callable[[str], Any]) -> None:
    long_run = script("long_run")
    targets = long_run.targets_of(3)
    frames = list(long_run.frames(96, targets, ("loss", "grad.norm", "param.grad.norm")))
    assert [frame.step for frame in frames if "grad.norm" in frame.values] == [*range(1, 51), 64, 96]
    assert frames[-1].values["param.grad.norm"].shape == (6,)
    assert all(len(frame.values) == 3 for frame in frames[50:63])


# -- beside other tools


@pytest.mark.parametrize("setting", ["nndoctor", "nndoctor-every", "profiler", "profiler-schedule"])
def test_a_tool_changes_nothing_of_the_training_it_is_measured_on(script: Callable[[str], Any], setting: str) -> None:
    peers = script("peers_overhead")

    def weights(attach: Callable[[Any], Any], steps: int = 10) -> torch.Tensor:
        torch.manual_seed(0)
        tool = attach(small_job(script))
        training = peers.training(tool)
        tool.begin()
        for _ in range(steps):
            next(training)
        tool.end()
        tool.tell()
        if hasattr(tool, "_doctor"):
            tool._doctor.close()
        return torch.cat([p.detach().flatten() for p in tool.job.model.parameters()])

    assert torch.equal(weights(peers.Bare), weights(peers.SETTINGS[setting].attach))


def test_what_a_tool_adds_is_told_as_a_multiple_of_what_we_add(script: Callable[[str], Any]) -> None:
    peers = script("peers_overhead")
    assert peers.multiple(peers.Estimate(1.2, 0.9, 1.5), 0.02) == "10 [0, 25]"
    assert peers.multiple(peers.Estimate(1.2, 1.1, 1.3), None) == "–"
    found = json.loads(peers.MEASURED.read_text())["results"]["lenet"]
    assert peers.added_by_us("lenet") == max(found["own"]["median"], found["cpu"]["median"]) > 0
    assert peers.added_by_us("a workload of which nothing is known") is None


def test_the_doctor_is_switched_on_where_it_is_measured(script: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    peers = script("peers_overhead")
    told: dict[str, Mapping[str, str]] = {}
    monkeypatch.setattr(peers, "Worker", lambda command, core, environment: told.setdefault(command[-1], environment))
    for setting in (None, "nndoctor", "nndoctor-every", "profiler"):
        peers.process("lenet", setting, None)
    assert {name: environment["NNDOCTOR"] for name, environment in told.items()} == {"lenet": "0", "nndoctor": "1", "nndoctor-every": "1", "profiler": "0"}
    monkeypatch.setenv("NNDOCTOR", "0")
    with pytest.raises(RuntimeError, match="switched off"):
        peers.SETTINGS["nndoctor"].attach(small_job(script))


def test_blocks_are_whole_cycles_of_the_tool(script: Callable[[str], Any]) -> None:
    peers = script("peers_overhead")
    assert [peers.block("gpt", peers.SETTINGS[name]) for name in ("nndoctor", "nndoctor-every", "profiler-schedule", "cockpit-full")] == [32, 8, 9, 1]
    assert peers.block("lenet", peers.SETTINGS["nndoctor"]) == 64


def test_a_tool_that_does_not_run_says_why(script: Callable[[str], Any]) -> None:
    peers = script("peers_overhead")
    failed = peers.result("cockpit-full", {"cockpit-full": []}, [], "TraceError: a | b")
    assert "does not run: TraceError: a / b" in peers.row("GPT", failed)


# -- what the layer times cover


def test_tiles_add_up_and_nearly_all_of_a_step_has_a_name(script: Callable[[str], Any]) -> None:
    covered = script("times_against_profiler").cover(small_job(script), warm=2, count=5)
    assert covered.missing == 0
    assert covered.layers < covered.named <= 1
    assert covered.named > 0.8  # steps of a millisecond; those of the benchmarks are longer


def test_models_that_are_not_measured_again_keep_their_row(script: Callable[[str], Any], tmp_path: Path) -> None:
    against = script("times_against_profiler")
    page = tmp_path / "page.md"
    page.write_text("<!-- agreement: begin -->\n| model | named |\n|---|---|\n| lenet | 99 % |\n<!-- agreement: end -->\n| gpt | of another table |\n", encoding="utf-8")
    assert against.with_known({"gpt": "| gpt | 98 % |"}, page, "agreement") == {"lenet": "| lenet | 99 % |", "gpt": "| gpt | 98 % |"}
