"""``nndoctor times``: where the time of a recorded run went."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nndoctor.cli.diagnose import RunArgument
from nndoctor.cli.output import UsageError, columns, count, plain, say, say_json, say_lines
from nndoctor.cli.settings import run_root

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

    from nndoctor.reports.times import Beside, Iteration, Layer, Part, Shares, Step, Times

TOP = 20


def times(
    run: RunArgument = None,
    table: Annotated[
        Literal["layers", "iterations", "experiment"],
        typer.Option(help="Layers and parts of the step, every iteration, or the whole experiment by quarters."),
    ] = "layers",
    iteration: Annotated[
        int | None, typer.Option(min=1, help="Layers of this one iteration instead of means; it must be a sampled one.")
    ] = None,
    skip: Annotated[int, typer.Option(min=0, help="Iterations at the start to leave out of the means.")] = 20,
    top: Annotated[int, typer.Option(min=0, help="Rows to show, 0 for all.")] = TOP,
    export: Annotated[
        Path | None, typer.Option(help="Write all rows there: .csv, .parquet, or .json for a Chrome trace.")
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option("--beside", metavar="RUN", help="A further process of the same training, on another device; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show where the time of a run went, layer by layer.

    The parts of each sampled step add up to the step. The run may still be running, or have been killed.
    """
    from nndoctor.record import RecordReader, find_run
    from nndoctor.reports.times import read_times

    def read(name: str | None) -> Times:
        folder = find_run(name, run_root())
        with RecordReader(folder) as reader:
            times = read_times(reader)
        if not times.iterations:
            raise UsageError(f"{folder.name} has no steps yet")
        return times

    folder, found = find_run(run, run_root()), read(run)
    if beside:
        _beside([found, *map(read, beside)], table, skip, top, export, as_json)
        return
    steps = _steps(found, iteration, skip)
    if as_json:
        say_json(_as_dict(folder, found, steps))
    else:
        say_lines(_lines(found, steps, table, top))
    if export is not None:
        _export(found, export, table, quiet=as_json)
    if not as_json:
        say(_verdict(found, steps))


def _steps(found: Times, iteration: int | None, skip: int) -> tuple[Step, ...]:
    if iteration is None:
        return found.after(skip)
    chosen = tuple(step for step in found.steps if step.step == iteration)
    if not chosen:
        near = sorted(found.steps, key=lambda step: abs(step.step - iteration))[:3]
        hint = f"; sampled near it: {', '.join(str(step.step) for step in near)}" if near else ""
        raise UsageError(f"--iteration: {iteration} was not sampled{hint}")
    return chosen


def _beside(runs: list[Times], table: Any, skip: int, top: int, path: Path | None, as_json: bool) -> None:
    """A column for every device, and which of them the others wait for."""
    from nndoctor.reports.times import device_names, devices_of

    rows, names = devices_of(runs, skip), device_names(runs)
    steps = [times.after(skip) for times in runs]
    whole = [sum(step.work for step in each) / len(each) if each else math.nan for each in steps]
    if as_json:
        say_json({"devices": names, "step_seconds": whole, "rows": [asdict(row) for row in rows]})
    else:
        heading: list[Sequence[str | Text]] = [[plain(word, "bold") for word in ("layer or part", *names, "apart")]]
        body = [[row.name, *("" if math.isnan(value) else _time(value) for value in row.seconds), _time(row.spread)] for row in rows]
        for line in _with_rest([*heading, *body], top):
            say(line)
    if path is not None:
        _export(runs[0], path, table, quiet=as_json, beside=runs[1:])
    if not as_json:
        say(_slowest(names, whole, rows))


def _slowest(names: Sequence[str], whole: Sequence[float], rows: Sequence[Beside]) -> str:
    known = [(seconds, name) for seconds, name in zip(whole, names, strict=True) if math.isfinite(seconds)]
    if len(known) < 2 or not rows:
        return "Fewer than two of the runs were measured by layers."
    (fastest, _), (slowest, name) = min(known), max(known)
    widest = max(rows, key=lambda row: -1.0 if math.isnan(row.spread) else row.spread)
    return (
        f"{name} is the slowest with {_time(slowest)} per step, {_percent(slowest / fastest - 1)} above the fastest; "
        f"they differ most in {widest.name} ({_time(widest.spread)})."
    )


def _export(found: Times, path: Path, table: Any, quiet: bool, beside: Sequence[Times] = ()) -> None:
    from nndoctor.reports.times_export import NotWritable, export

    try:
        rows = export(found, path, table, beside)
    except NotWritable as error:
        raise UsageError(f"--export: {error}") from error
    if not quiet:
        say(f"{path}: {count(rows, 'event' if path.suffix.lower() == '.json' else 'row')}")


def _lines(found: Times, steps: Sequence[Step], table: str, top: int) -> list[Text]:
    from nndoctor.reports.times import layers_of, parts_of

    if table == "iterations":
        return _with_rest(_iteration_rows(found), top, last=True)
    if table == "experiment":
        return columns(_experiment_rows(found))
    if not steps:
        return []
    lines = _with_rest(_layer_rows(layers_of(steps)), top)
    return [*lines, plain(""), *columns(_part_rows(parts_of(steps))), plain("")]


def _with_rest(rows: list[Sequence[str | Text]], top: int, last: bool = False) -> list[Text]:
    """The heading and the first `top` rows (the last ones where these matter most), and how many there are beside."""
    heading, *body = rows
    shown = body if not top or len(body) <= top else body[-top:] if last else body[:top]
    lines = columns([heading, *shown])
    if len(shown) < len(body):
        lines.append(plain(f"and {len(body) - len(shown)} more (--top 0 shows all)", "dim"))
    return lines


def _layer_rows(layers: Sequence[Layer]) -> list[Sequence[str | Text]]:
    repeated = any(layer.recomputed for layer in layers)
    heading = ["share", "forward", "backward", *(["recomputed"] if repeated else []), "layer", "kind"]
    rows: list[Sequence[str | Text]] = [[plain(word, "bold") for word in heading]]
    for layer in layers:
        passes = [layer.forward, layer.backward, *([layer.recomputed] if repeated else [])]
        rows.append([_percent(layer.share), *map(_time, passes), layer.name, layer.kind])
    return rows


def _part_rows(parts: Sequence[Part]) -> list[Sequence[str | Text]]:
    rows: list[Sequence[str | Text]] = [[plain(word, "bold") for word in ("share", "time", "part of the step")]]
    rows.extend([_percent(part.share), _time(part.seconds), f"optimizer {part.name}" if part.phase == "optimizer" else part.name] for part in parts)
    return rows


def _iteration_rows(found: Times) -> list[Sequence[str | Text]]:
    heading = ("epoch", "iteration", "whole", "data", "training", "test", "checkpoint", "end")
    rows: list[Sequence[str | Text]] = [[plain(word, "bold") for word in heading]]
    rows.extend(_iteration_row(row) for row in found.iterations)
    return rows


def _iteration_row(row: Iteration) -> Sequence[str | Text]:
    from datetime import datetime, timezone

    end = datetime.fromtimestamp(row.ended, timezone.utc).strftime("%H:%M:%S.%f")[:-3]
    epoch = "" if row.epoch is None else f"{row.epoch:.2f}"
    return [epoch, str(row.step), *map(_time, (row.seconds, row.data, row.training, row.test, row.checkpoint)), end]


def _experiment_rows(found: Times) -> list[Sequence[str | Text]]:
    from nndoctor.reports.times import experiment_of

    heading = ("run", "skipped", "iterations", "overall", "data", "training", "test", "checkpoint", "missing")
    rows: list[Sequence[str | Text]] = [[plain(word, "bold") for word in heading]]
    for line in experiment_of(found):
        seconds = (line.overall, line.data, line.training, line.test, line.checkpoint)
        missing = f"{_time(line.missing)} ({_percent(line.missing / line.overall) if line.overall else '–'})"
        rows.append([f"{line.fraction:.0%}", str(line.skipped), str(line.computed), *map(_time, seconds), missing])
    return rows


def _verdict(found: Times, steps: Sequence[Step]) -> str:
    from nndoctor.reports.times import shares_of

    machine = (found.facts.get("machine") or {}).get("fingerprint", "")
    on = f" on machine {machine}" if machine else ""
    if not steps:
        return f"{count(len(found.iterations), 'step')}{on}; none was measured by layers."
    shares = shares_of(steps)
    whole = sum(step.work for step in steps) / len(steps)
    return (
        f"{_time(whole)} per step without the doctor{on}: forward {_percent(shares.forward)}, backward {_percent(shares.backward)}, optimizer "
        f"{_percent(shares.optimizer)}, loss {_percent(shares.loss)}, data {_percent(shares.data)}; {_percent(shares.named)} of it named "
        f"({len(steps)} of {count(len(found.iterations), 'step')} measured, {_overhead(found)})."
    )


def _overhead(found: Times) -> str:
    share = found.facts.get("overhead")
    return "the doctor's cost is not known yet" if share is None else f"the doctor cost {100 * share:.2g} % of the run after its first steps"


def _as_dict(folder: Path, found: Times, steps: Sequence[Step]) -> dict[str, Any]:
    from nndoctor.reports.times import experiment_of, layers_of, parts_of, shares_of

    shares: Shares | None = shares_of(steps) if steps else None
    return {
        "run": folder.name,
        "machine": found.facts.get("machine"),
        "overhead": found.facts.get("overhead"),
        "steps": len(found.iterations),
        "measured": len(steps),
        "step_seconds": sum(step.work for step in steps) / len(steps) if steps else None,
        "shares": None if shares is None else asdict(shares),
        "layers": [asdict(layer) for layer in layers_of(steps)],
        "parts": [asdict(part) for part in parts_of(steps)],
        "iterations": [asdict(row) for row in found.iterations],
        "experiment": [asdict(line) for line in experiment_of(found)],
    }


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"


def _time(seconds: float) -> str:
    from nndoctor.reports.charts import duration

    return duration(seconds).replace("\u202f", " ")
