"""Tables of time are sums over what was recorded; nothing is lost and nothing counted twice."""

from __future__ import annotations

import builtins
import csv
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nndoctor.record import RecordReader, RecordWriter, RunFacts
from nndoctor.reports.times import DOCTOR, PARTS, Times, experiment_of, layers_of, parts_of, read_times, shares_of
from nndoctor.reports.times_export import NotWritable, chrome_trace, export, rows_of
from nndoctor.signals import CATALOGUE, Frame, Targets

TARGETS = Targets(
    layers=("conv", "=fc"), layer_kinds=("Conv2d", "Linear"), layer_depths=(0, 1), groups=("adam[0]", "adam[1]")
)
STEPS = 40
STARTED = 1_000_000.0


def frame(step: int) -> Frame:
    """Ten seconds per step; step 30 evaluates for three of them, every tenth step is sampled."""
    values: dict[str, Any] = {"loss": [1.0]}
    if step > 1:
        values |= {"step.time": [10.0], "step.data_wait_fraction": [0.1]}
    if step % 10 == 0:
        values |= {
            "time.forward": [1.0, 2.0], "time.backward": [2.0, math.nan], "time.optimizer": [0.5, 0.25],
            "tile.span": [9.75], **{name: [0.0] for name in PARTS},
            "tile.loss": [0.25], "tile.doctor": [1.75], "tile.data_wait": [1.0], "tile.rest": [1.0],
            "step.evaluation": [3.0 if step == 30 else 0.0], "step.checkpoint": [0.0],
        }  # fmt: skip
    arrays = {name: np.float32(value) for name, value in values.items()}
    return Frame(step, STARTED + 5 + 10 * step, step / 20, arrays)


@pytest.fixture
def times(tmp_path: Path) -> Times:
    facts = {"machine": {"fingerprint": "abc", "accelerators": ["H1"]}, "pauses_since_step": {"evaluation": 2.0, "checkpoint": 1.0}}
    with RecordWriter(tmp_path / "run", RunFacts("lenet", STARTED, facts, ("core",)), TARGETS) as writer:
        for step in range(1, STEPS + 1):
            writer.frame(frame(step))
    with RecordReader(tmp_path / "run") as reader:
        return read_times(reader)


def test_the_parts_are_those_of_the_catalogue() -> None:
    assert set(PARTS) == {signal.name for signal in CATALOGUE if signal.name.startswith("tile.")} - {"tile.span"}


def test_the_tiles_of_a_step_add_up_to_it(times: Times) -> None:
    assert [step.step for step in times.steps] == [10, 20, 30, 40]
    for step in times.steps:
        assert sum(tile.seconds for tile in step.tiles) == pytest.approx(step.span)
        assert step.doctor == 1.75
        assert sum(step.share(tile) for tile in step.tiles if tile.name != DOCTOR) == pytest.approx(1.0)


def test_layers_and_parts_are_means_over_the_sampled_steps(times: Times) -> None:
    conv, fc = layers_of(times.steps)
    assert (conv.name, conv.forward, conv.backward, conv.share) == ("conv", 1.0, 2.0, 3 / 8)
    assert (fc.name, fc.forward, fc.backward) == ("=fc", 2.0, 0.0)
    parts = {part.name: part for part in parts_of(times.steps)}
    assert parts["adam[0]"].seconds == 0.5
    assert math.isnan(parts[DOCTOR].share)
    assert sum(row.share for row in (conv, fc)) + sum(p.share for p in parts.values() if p.name != DOCTOR) == pytest.approx(1)


def test_shares_are_of_the_step_without_the_doctor(times: Times) -> None:
    shares = shares_of(times.steps)
    assert (shares.forward, shares.backward, shares.optimizer) == (3 / 8, 2 / 8, 0.75 / 8)
    assert shares.named == 1 - 1 / 8
    assert shares.covered == pytest.approx(0.975)
    assert math.isnan(shares_of(()).forward)


def test_the_first_iterations_are_left_out_where_there_are_enough(times: Times) -> None:
    assert [step.step for step in times.after(20)] == [30, 40]
    assert len(times.after(1000)) == 4


def test_there_is_a_row_per_iteration_and_its_parts_add_up(times: Times) -> None:
    assert len(times.iterations) == STEPS
    first, *others = times.iterations
    assert math.isnan(first.seconds)
    for row in others:
        assert row.data + row.training + row.test + row.checkpoint == pytest.approx(row.seconds)
    assert times.iterations[29].test == 3.0


def test_the_experiment_is_told_by_quarters_with_what_is_missing(times: Times) -> None:
    lines = experiment_of(times)
    assert [(line.fraction, line.skipped, line.computed) for line in lines] == [
        (0.25, 0, 10), (0.5, 0, 20), (0.75, 0, 30), (1.0, 0, 40), (0.75, 20, 10), (1.0, 20, 20),
    ]  # fmt: skip
    quarter, whole, late = lines[0], lines[3], lines[5]
    assert quarter.overall == 105
    assert quarter.missing == 15  # until the first step began, and that step, which nobody timed
    assert whole.overall == 405 + 3
    assert (whole.test, whole.checkpoint) == (3 + 2, 1)
    assert late.missing == 0
    for line in lines:
        assert line.data + line.training + line.test + line.checkpoint + line.missing == pytest.approx(line.overall)


def test_csv_has_every_tile_and_no_formulas(times: Times, tmp_path: Path) -> None:
    count = export(times, tmp_path / "layers.csv")
    with (tmp_path / "layers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == count == sum(len(step.tiles) for step in times.steps)
    assert sum(float(row["seconds"]) for row in rows if row["iteration"] == "10") == pytest.approx(9.75)
    assert {row["name"] for row in rows if row["kind"] == "Linear"} == {"'=fc"}


@pytest.mark.parametrize(("table", "rows"), [("iterations", STEPS), ("experiment", 6)])
def test_the_other_tables_are_exported_too(times: Times, tmp_path: Path, table: Any, rows: int) -> None:
    assert export(times, tmp_path / "t.csv", table) == rows
    found = rows_of(times, table)
    assert len(found) == rows
    if table == "iterations":
        assert list(found[0])[:7] == ["epoch", "phase", "iteration", "data_time", "training_time", "test_time", "checkpoint_time"]
    else:
        assert found[0]["machine"] == "abc"
        assert found[0]["accelerators"] == "H1"


def test_the_trace_holds_each_step_and_its_tiles_one_after_the_other(times: Times, tmp_path: Path) -> None:
    events = [event for event in chrome_trace(times)["traceEvents"] if event["ph"] == "X"]
    steps, tiles = ([event for event in events if event["tid"] == track] for track in (0, 1))
    assert [event["name"] for event in steps] == ["step 10", "step 20", "step 30", "step 40"]
    inside = [event for event in tiles if event["ts"] < steps[1]["ts"]]
    assert sum(event["dur"] for event in inside) == pytest.approx(steps[0]["dur"])
    for before, after in pairwise(inside):
        assert before["ts"] + before["dur"] == pytest.approx(after["ts"])
    names = [event["name"] for event in inside]
    assert names.index("conv") < names.index("loss") < names.index("adam[0]")
    assert export(times, tmp_path / "trace.json") == len(json.loads((tmp_path / "trace.json").read_text())["traceEvents"])


def test_parquet_without_its_library_says_what_to_install(times: Times, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, *args: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return builtins.__import__(name, *args)

    monkeypatch.setattr("nndoctor.reports.times_export.import_module", missing)
    with pytest.raises(NotWritable, match="pip install pyarrow"):
        export(times, tmp_path / "t.parquet")


def test_parquet_holds_the_same_rows(times: Times, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    count = export(times, tmp_path / "t.parquet")
    assert parquet.read_table(tmp_path / "t.parquet").num_rows == count


def test_an_unknown_suffix_is_refused_with_those_there_are(times: Times, tmp_path: Path) -> None:
    with pytest.raises(NotWritable, match=r"\.csv, \.parquet, \.json"):
        export(times, tmp_path / "t.xlsx")
    with pytest.raises(NotWritable, match="cannot be written"):
        export(times, tmp_path / "nowhere" / "t.csv")
