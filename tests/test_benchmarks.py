"""The scripts in ``benchmarks/`` that hold a bound: run small, so that a claim of the docs cannot rot."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
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


# -- long runs


def test_a_simulated_run_brings_every_layer_on_measured_steps_only(script: Callable[[str], Any]) -> None:
    long_run = script("long_run")
    targets = long_run.targets_of(3)
    frames = list(long_run.frames(96, targets, ("loss", "grad.norm", "param.grad.norm")))
    assert [frame.step for frame in frames if "grad.norm" in frame.values] == [*range(1, 51), 64, 96]
    assert frames[-1].values["param.grad.norm"].shape == (6,)
    assert all(len(frame.values) == 3 for frame in frames[50:63])
