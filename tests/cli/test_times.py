"""``nndoctor times`` answers from the record alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nndoctor.record import RecordWriter, RunFacts
from nndoctor.reports.times import PARTS
from nndoctor.signals import Frame, Targets

from .conftest import HOSTILE, Command


@pytest.fixture
def timed(here: Path) -> Path:
    """A run of 64 steps of which every 16th was measured by layers; one layer has a hostile name."""
    folder = here / ".nndoctor/runs/20240103-timed"
    targets = Targets(layers=("conv", HOSTILE), layer_kinds=("Conv2d", "Linear"), layer_depths=(0, 1), groups=("adam[0]",))
    with RecordWriter(folder, RunFacts("timed", 1e9, {"overhead": 0.004}, ("core",)), targets) as writer:
        for step in range(1, 65):
            values = {"step.time": np.float32([0.008])}
            if step % 16 == 0:
                values |= {name: np.float32([0.0]) for name in PARTS}
                values |= {"time.forward": np.float32([0.002, 0.001]), "time.backward": np.float32([0.004, 0.0005])}
                values |= {"time.optimizer": np.float32([0.0005]), "tile.span": np.float32([0.008])}
            writer.frame(Frame(step, 1e9 + step, None, values))
    return folder


def test_layers_are_listed_by_share_and_the_last_line_sums_up(nndoctor: Command, timed: Path) -> None:
    answer = nndoctor("times", "timed")
    assert answer.code == 0
    assert answer.out.splitlines()[1].split() == ["75.0", "%", "2", "ms", "4", "ms", "conv", "Conv2d"]
    assert "\x1b[31m" not in answer.out
    assert answer.verdict == (
        "8 ms per step without the doctor: forward 37.5 %, backward 56.2 %, optimizer 6.2 %, loss 0.0 %, data 0.0 %; 100.0 % of it named "
        "(3 of 64 steps measured, the doctor cost 0.4 % of the run after its first steps)."
    )


def test_one_iteration_can_be_asked_for_and_a_wrong_one_names_its_neighbours(nndoctor: Command, timed: Path) -> None:
    assert "(1 of 64 steps measured" in nndoctor("times", "timed", "--iteration", "16").verdict
    answer = nndoctor("times", "timed", "--iteration", "30")
    assert answer.code == 2
    assert "30 was not sampled; sampled near it: 32, 16, 48" in answer.err


def test_rows_beyond_the_top_are_counted(nndoctor: Command, timed: Path) -> None:
    assert "and 1 more (--top 0 shows all)" in nndoctor("times", "timed", "--top", "1").out
    iterations = nndoctor("times", "timed", "--table", "iterations", "--top", "0").out
    assert len(iterations.splitlines()) == 1 + 64 + 1


def test_as_json_it_is_json_and_nothing_else(nndoctor: Command, timed: Path) -> None:
    data = json.loads(nndoctor("times", "timed", "--json").out)
    assert data["layers"][0] == {"name": "conv", "kind": "Conv2d", "forward": pytest.approx(0.002), "backward": pytest.approx(0.004), "recomputed": 0.0, "share": pytest.approx(0.75)}
    assert data["measured"] == 3
    assert len(data["iterations"]) == 64
    assert [line["fraction"] for line in data["experiment"][:4]] == [0.25, 0.5, 0.75, 1.0]


def test_export_writes_what_the_suffix_says(nndoctor: Command, timed: Path, here: Path) -> None:
    answer = nndoctor("times", "timed", "--export", "t.csv")
    assert answer.code == 0
    assert "t.csv: 20 rows" in answer.out
    assert (here / "t.csv").read_text().startswith("iteration,epoch,name,kind,phase,seconds,share\n")
    assert nndoctor("times", "timed", "--export", "t.xls").code == 2


def test_a_run_without_layer_times_says_so(nndoctor: Command, healthy: Path) -> None:
    answer = nndoctor("times", "healthy")
    assert answer.code == 0
    assert answer.verdict == "60 steps; none was measured by layers."
