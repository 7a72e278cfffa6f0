"""Writes the times of a run for other programs: CSV, Parquet, and the trace format of Chrome and Perfetto."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeAlias

from nndoctor.reports.times import DOCTOR, Iteration, Step, Times, experiment_of

Table: TypeAlias = Literal["layers", "iterations", "experiment"]
TABLES: tuple[Table, ...] = ("layers", "iterations", "experiment")
SUFFIXES = (".csv", ".parquet", ".json")

# In which order the tiles of a step are drawn in a trace: where in the step the parts of the loop usually are.
BEFORE = (DOCTOR, "rest", "evaluation", "checkpoint", "scheduler", "data wait", "batch preparation", "host to device", "zero_grad")
AFTER = ("gradient clipping", "gradient scaler", "optimizer")


class NotWritable(Exception):
    """The file asked for cannot be written: says why and what to do."""


def rows_of(times: Times, table: Table) -> list[dict[str, Any]]:
    """The rows of a table, each with the same keys.

    ``layers`` has a row per sampled step and tile, ``iterations`` one per step, ``experiment`` one per quarter of the run.
    """
    if table == "layers":
        return [row for step in times.steps for row in _tile_rows(step)]
    if table == "iterations":
        return [_iteration_row(row) for row in times.iterations]
    about = _about(times)
    return [{**_short(asdict(line)), **about} for line in experiment_of(times)]


def _tile_rows(step: Step) -> Iterator[dict[str, Any]]:
    for tile in step.tiles:
        yield {
            "iteration": step.step, "epoch": step.epoch, "name": tile.name, "kind": tile.kind, "phase": tile.phase,
            "seconds": tile.seconds, "share": step.share(tile),
        }  # fmt: skip


def _iteration_row(row: Iteration) -> dict[str, Any]:
    return {
        "epoch": row.epoch, "phase": "train", "iteration": row.step, "data_time": row.data, "training_time": row.training,
        "test_time": row.test, "checkpoint_time": row.checkpoint, "iteration_time": row.seconds,
        "end": datetime.fromtimestamp(row.ended, timezone.utc).isoformat(timespec="microseconds"),
    }  # fmt: skip


def _short(line: Mapping[str, Any]) -> dict[str, Any]:
    seconds = {"overall", "data", "training", "test", "checkpoint", "missing"}
    return {f"{key}_time" if key in seconds else key: value for key, value in line.items()}


def _about(times: Times) -> dict[str, Any]:
    """What run and machine a line of the experiment table is about."""
    facts = times.facts
    machine = facts.get("machine") or {}
    versions = facts.get("versions") or {}
    return {
        "run": times.name,
        "started": datetime.fromtimestamp(times.started, timezone.utc).isoformat(timespec="seconds"),
        "model": facts.get("model", ""),
        "parameters": facts.get("parameters"),
        "layers": facts.get("layers"),
        "optimizer": facts.get("optimizer", ""),
        "loss": facts.get("loss", ""),
        "device": facts.get("device", ""),
        "dtype": facts.get("dtype", ""),
        "torch": versions.get("torch", ""),
        "python": versions.get("python", ""),
        "nndoctor": versions.get("nndoctor", ""),
        "doctor_share": facts.get("overhead"),
        "system": machine.get("system", ""),
        "processor": machine.get("processor", ""),
        "cores": machine.get("cores"),
        "threads": machine.get("threads"),
        "memory_gb": machine.get("memory_gb"),
        "accelerators": ", ".join(machine.get("accelerators", ())),
        "machine": machine.get("fingerprint", ""),
    }


def export(times: Times, path: Path, table: Table = "layers", beside: Sequence[Times] = ()) -> int:
    """Write `table` to `path`; the suffix chooses: ``.csv``, ``.parquet``, or ``.json`` for a Chrome trace of all steps.

    Args:
        beside: further runs, whose rows follow; then every row says of which run and device it is.

    Returns:
        How many rows (events of a trace) were written.

    Raises:
        NotWritable: another suffix, a missing library, or a place that cannot be written to.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise NotWritable(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}, got {suffix or 'none'}")
    runs = (times, *beside)
    if suffix == ".json":
        rows = [event for number, each in enumerate(runs, start=1) for event in chrome_trace(each, number)["traceEvents"]]
    elif beside:
        rows = [{"run": each.name, "device": each.facts.get("device", ""), **row} for each in runs for row in rows_of(each, table)]
    else:
        rows = rows_of(times, table)
    try:
        if suffix == ".json":
            path.write_text(json.dumps({"traceEvents": rows, "displayTimeUnit": "ms"}), encoding="utf-8")
        elif suffix == ".csv":
            _write_csv(path, rows)
        else:
            _write_parquet(path, rows)
    except OSError as error:
        raise NotWritable(f"{path} cannot be written: {error.strerror or error}") from error
    return len(rows)


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(rows[0] if rows else ())
        writer.writerows([_cell(value) for value in row.values()] for row in rows)


def _cell(value: Any) -> Any:
    """A value for a spreadsheet: nothing for what was not measured, no text that it would take for a formula."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise NotWritable("Parquet needs pyarrow, which is not installed: pip install pyarrow, or write .csv") from None
    parquet.write_table(arrow.Table.from_pylist(list(rows)), path)


def chrome_trace(times: Times, process: int = 1) -> dict[str, Any]:
    """The sampled steps in the trace format of chrome://tracing and Perfetto.

    A tile is the sum over a step, so the order within a step is that of the network, not measured: what comes before the
    forward pass, layers forward, the loss, layers backward in reverse, the optimizer. Lengths and the begin of steps are.
    """
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": process, "tid": 0, "name": "process_name", "args": {"name": times.name}},
        {"ph": "M", "pid": process, "tid": 0, "name": "thread_name", "args": {"name": "steps"}},
        {"ph": "M", "pid": process, "tid": 1, "name": "thread_name", "args": {"name": "tiles"}},
    ]
    for step in times.steps:
        at = (step.ended - times.started - step.span) * 1e6  # microseconds
        events.append({"ph": "X", "pid": process, "tid": 0, "name": f"step {step.step}", "ts": at, "dur": step.span * 1e6})
        for tile in _in_order(step):
            length = tile.seconds * 1e6
            events.append({"ph": "X", "pid": process, "tid": 1, "name": tile.name, "cat": tile.phase, "ts": at, "dur": length, "args": {"kind": tile.kind}})
            at += length
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _in_order(step: Step) -> list[Any]:
    parts = {tile.name: tile for tile in step.tiles if tile.phase == "part"}
    layers = {phase: [tile for tile in step.tiles if tile.phase == phase] for phase in ("forward", "backward", "recomputed", "optimizer")}
    first = [parts.pop(name) for name in BEFORE if name in parts]
    last = [parts.pop(name) for name in AFTER if name in parts]
    forward = [*layers["forward"], *_taken(parts, "forward outside layers"), *_taken(parts, "loss")]
    backward = [*layers["recomputed"], *_taken(parts, "recomputed outside layers"), *reversed(layers["backward"]), *_taken(parts, "backward outside layers")]
    return [*first, *forward, *backward, *parts.values(), *last, *layers["optimizer"]]


def _taken(parts: dict[str, Any], name: str) -> list[Any]:
    return [parts.pop(name)] if name in parts else []
