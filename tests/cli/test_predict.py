"""``nndoctor predict`` learns from the records in the run root and answers from them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nndoctor.record import RecordWriter, RunFacts
from nndoctor.signals import Frame, Targets

from .conftest import Command


def run_of(root: Path, name: str, widths: tuple[int, ...], batch: int = 32, machine: str = "here") -> None:
    """A recorded run of linear layers on a machine that does 50 billion operations per second."""
    layers = tuple(f"fc{n}" for n in range(len(widths)))
    targets = Targets(
        layers=layers, layer_kinds=("Linear",) * len(widths), layer_depths=tuple(range(len(widths))), params=tuple(f"{n}.weight" for n in layers),
        param_layers=tuple(range(len(widths))), param_shapes=tuple((w, w) for w in widths), groups=("sgd[0]",),
    )  # fmt: skip
    flops = np.float32([2 * batch * w * w for w in widths])
    moved = np.float32([8 * batch * w + 4 * w * w for w in widths])
    values = {
        "step.time": [0.01], "step.data_wait_fraction": [0.0], "tile.span": [0.01], "time.forward": 2e-5 + flops * 2e-11,
        "time.backward": 2e-5 + flops * 4e-11, "time.optimizer": [1e-4], "tile.loss": [1e-4], "layer.flops": flops, "layer.bytes": moved,
        "layer.steps_in_row": [1.0] * len(widths), "input.batch_size": [float(batch)],
    }  # fmt: skip
    with RecordWriter(root / name, RunFacts(name, 1e9, {"machine": {"fingerprint": machine}}, ()), targets) as writer:
        for step in range(1, 11):
            writer.frame(Frame(step, 1e9 + step, None, {key: np.float32(value) for key, value in values.items()}))


@pytest.fixture
def runs(here: Path) -> Path:
    root = here / ".nndoctor/runs"
    for name, widths in (("a", (64, 128, 256)), ("b", (96, 512, 300)), ("c", (128, 400, 64)), ("d", (80, 350))):
        run_of(root, name, widths)
    return root


def test_a_recorded_network_is_predicted_with_another_batch_size(nndoctor: Command, runs: Path) -> None:
    answer = nndoctor("predict", "a", "--batch", "40", "--steps", "1000", "--json")
    assert answer.code == 0, answer.err
    data = json.loads(answer.out)
    flops = 2 * 40 * sum(w * w for w in (64, 128, 256))
    assert sum(layer["forward"] for layer in data["layers"]) == pytest.approx(3 * 2e-5 + flops * 2e-11, rel=0.1)
    assert data["low"] <= data["step"] <= data["high"]
    assert data["total"] == pytest.approx(1000 * data["step"])


def test_the_last_line_says_how_sure_it_is(nndoctor: Command, runs: Path) -> None:
    answer = nndoctor("predict", "b", "--top", "1")
    assert answer.code == 0, answer.err
    assert "and 2 more (--top 0 shows all)" in answer.out
    assert answer.verdict.startswith("b, batch 32: ")
    assert "learnt from 4 networks, of which left-out ones were met within" in answer.verdict


def test_far_beyond_what_was_recorded_it_refuses_until_asked(nndoctor: Command, runs: Path) -> None:
    refused = nndoctor("predict", "a", "--batch", "4000")
    assert refused.code == 2
    assert "layers unlike any of the 4 recorded networks" in refused.err
    asked = nndoctor("predict", "a", "--batch", "4000", "--extrapolate")
    assert asked.code == 0
    assert "extrapolated: 3 layers" in asked.err


def test_a_network_that_never_ran_is_predicted_from_its_shapes(nndoctor: Command, runs: Path, here: Path) -> None:
    (here / "fresh_net.py").write_text("from torch import nn\ndef build():\n    return nn.Sequential(nn.Linear(200, 200), nn.Linear(200, 200))\n")
    answer = nndoctor("predict", "--model", "fresh_net:build", "--input", "32x200", "--json")
    assert answer.code == 0, answer.err
    data = json.loads(answer.out)
    assert [layer["flops"] for layer in data["layers"]] == [2 * 32 * 200 * 200] * 2
    assert data["layers"][0]["forward"] == pytest.approx(2e-5 + 2 * 32 * 200 * 200 * 2e-11, rel=0.1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "nothing_there:build", "--input", "32x3"), "no module named"),
        (("--model", "torch.nn:Identity"), "needs --input"),
        (("--model", "torch.nn:Identity", "--input", "wide"), "expected sizes like 32x3x224x224"),
        (("a", "--learn", "a"), "at least two networks, got 1"),
    ],
)
def test_what_is_missing_is_said(nndoctor: Command, runs: Path, words: tuple[str, ...], said: str) -> None:
    answer = nndoctor("predict", *words)
    assert answer.code == 2
    assert said in answer.err


def test_runs_of_another_machine_are_not_learnt_from(nndoctor: Command, runs: Path) -> None:
    run_of(runs, "far", (64, 128), machine="elsewhere")
    answer = nndoctor("predict", "far")
    assert answer.code == 2
    assert "at least two networks, got 1" in answer.err


def test_without_layer_times_there_is_nothing_to_learn(nndoctor: Command, healthy: Path) -> None:
    assert "has layer times" in nndoctor("predict").err
