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


@pytest.fixture
def devices(here: Path) -> None:
    """One training in two processes; the second device takes twice as long for its second layer, and has no third one."""
    for number in (0, 1):
        folder = here / f".nndoctor/runs/20240104-rank{number}"
        targets = Targets(layers=("conv", "fc", "head")[: 3 - number], layer_kinds=("Conv2d", "Linear", "Linear")[: 3 - number], layer_depths=(0, 1, 2)[: 3 - number])
        with RecordWriter(folder, RunFacts(f"rank{number}", 1e9, {"device": f"cuda:{number}"}, ("core",)), targets) as writer:
            for step in range(1, 33):
                values = {"step.time": np.float32([0.01 + 0.002 * number])} | {name: np.float32([0.0]) for name in PARTS}
                values |= {"time.forward": np.float32([0.001, 0.002 * (1 + number), 0.001][: 3 - number]), "time.backward": np.float32([0.004, 0.002, 0.0][: 3 - number])}
                values |= {"tile.span": np.float32([0.01 + 0.001 * number]), "tile.rest": np.float32([0.0])}
                writer.frame(Frame(step, 1e9 + step, None, values))


@pytest.mark.usefixtures("devices")
def test_devices_stand_side_by_side_and_the_slowest_is_named(nndoctor: Command, here: Path) -> None:
    answer = nndoctor("times", "rank0", "--beside", "rank1", "--export", str(here / "both.csv"))
    assert answer.code == 0
    lines = [line.split() for line in answer.out.splitlines()]
    assert lines[0] == ["layer", "or", "part", "cuda:0", "cuda:1", "apart"]
    assert ["conv", "5", "ms", "5", "ms", "0", "s"] in lines
    assert ["fc", "4", "ms", "6", "ms", "2", "ms"] in lines
    assert answer.verdict == "cuda:1 is the slowest with 11 ms per step, 10.0 % above the fastest; they differ most in fc (2 ms)."
    rows = (here / "both.csv").read_text().splitlines()
    assert rows[0].startswith("run,device,iteration,")
    assert {row.split(",")[1] for row in rows[1:]} == {"cuda:0", "cuda:1"}
    head = next(row for row in json.loads(nndoctor("times", "rank0", "--beside", "rank1", "--json").out)["rows"] if row["name"] == "head")
    assert head["seconds"] == [pytest.approx(0.001), "NaN"]


@pytest.mark.usefixtures("devices")
def test_every_device_is_a_process_of_its_own_in_a_trace(nndoctor: Command, here: Path) -> None:
    assert nndoctor("times", "rank0", "--beside", "rank1", "--export", str(here / "both.json")).code == 0
    events = json.loads((here / "both.json").read_text())["traceEvents"]
    assert {event["pid"] for event in events} == {1, 2}
    assert nndoctor("times", "rank0", "--beside", "rank9").code != 0
