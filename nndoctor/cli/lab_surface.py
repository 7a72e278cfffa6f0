"""``nndoctor lab surface``: the loss around a checkpoint, with the optimizer's way in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nndoctor.cli.lab_options import (
    DEFAULT_LOSS,
    BatchesOption,
    CheckpointArgument,
    DeviceOption,
    FigureOption,
    JsonOption,
    LossOption,
    MaxBatchesOption,
    ModelOption,
    RunOption,
    WorkOption,
    answer,
    at_work,
    patient_from,
)
from nndoctor.cli.output import UsageError

if TYPE_CHECKING:
    from nndoctor.lab import Patient
    from nndoctor.lab.surface import LossSurface
    from nndoctor.lab.trail import TrailRecord
    from nndoctor.reports.view import Relief

DIRECTIONS = ("random", "trajectory", "hessian", "line")


def surface(
    checkpoint: CheckpointArgument = None,
    *,
    model: ModelOption,
    batches: BatchesOption,
    loss: LossOption = DEFAULT_LOSS,
    directions: Annotated[
        str, typer.Option("--directions", metavar="|".join(DIRECTIONS), help="What the plane, or line, is spanned by.")
    ] = "random",
    trail: Annotated[
        Path | None,
        typer.Option(
            "--trail",
            metavar="FILE",
            help="The way of the optimizer, saved by nndoctor.lab.trail.  [default: the checkpoints of the folder]",
        ),
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", metavar="CHECKPOINT", help="For line: the other end.")] = None,
    points: Annotated[int, typer.Option("--points", min=2, help="Along each axis.")] = 51,
    span: Annotated[float, typer.Option("--span", help="From -span to span (random, hessian).")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", help="Of random directions.")] = 0,
    processes: Annotated[int, typer.Option("--processes", min=1, help="Share the rows among so many.")] = 1,
    recompute_batchnorm: Annotated[
        bool, typer.Option("--recompute-batchnorm", help="Gather running statistics anew at every point.")
    ] = False,
    style: Annotated[str, typer.Option("--style", metavar="contour|heatmap|3d", help="Of the figure.")] = "contour",
    max_batches: MaxBatchesOption = None,
    device: DeviceOption = None,
    work: WorkOption = None,
    figure: FigureOption = None,
    run: RunOption = None,
    json: JsonOption = False,
) -> None:
    """The loss over a plane through a checkpoint.

    random: filter-normalised random directions; trajectory: the plane that shows most of the optimizer's way; hessian: the
    two sharpest directions; line: to another checkpoint.
    """
    with at_work() as progress:
        from nndoctor.lab import landscape_figures as figures
        from nndoctor.lab import surface as lab
        from nndoctor.lab.directions import direction_to

        if directions not in DIRECTIONS:
            raise UsageError(f"--directions: expected {', '.join(DIRECTIONS)}, got {directions!r}")
        if style not in figures.STYLES:
            raise UsageError(f"--style: expected {', '.join(figures.STYLES)}, got {style!r}")
        patient = patient_from(model, batches, loss, checkpoint, max_batches, device)
        way = way_from(patient, trail, checkpoint, needed=directions == "trajectory")
        shared: dict[str, Any] = {
            "recompute_batchnorm": recompute_batchnorm,
            "processes": processes,
            "work": work,
            "progress": progress,
        }
        if directions == "line":
            if to is None:
                raise UsageError("--directions line: say with --to where the line leads")
            found = lab.loss_surface(
                patient, [direction_to(patient, to)], lab.grid(-0.5, 1.5, points), kind="line", **shared
            )
        elif directions == "trajectory":
            assert way is not None  # needed
            found = lab.trajectory_surface(patient, way, points=points, **shared)
        elif directions == "hessian":
            found = lab.hessian_surface(patient, span=span, points=points, trail=way, **shared)
        else:
            found = lab.random_surface(patient, span=span, points=points, seed=seed, trail=way, **shared)
    answer(found, list(lines(found)), json=json, figure=figure, draw=lambda drawn: figures.draw_surface(drawn, style), run=run, title=f"Loss surface, {directions} directions", relief=relief(found))


def way_from(patient: Patient, trail: Path | None, checkpoint: Path | None, *, needed: bool) -> TrailRecord | None:
    """The optimizer's way: as it was saved, or through the checkpoints of the folder; None where there is none and none is needed."""
    from nndoctor.lab.points import weights_at
    from nndoctor.lab.sources import checkpoint_files
    from nndoctor.lab.trail import TrailRecord

    if trail is not None:
        return TrailRecord.load(trail)
    files = checkpoint_files(checkpoint) if checkpoint is not None and checkpoint.is_dir() else []
    if len(files) >= 3:
        from nndoctor.cli.lab_path import steps_of

        return TrailRecord.of_checkpoints(
            patient.model, [weights_at(patient, file) for file in files], steps=steps_of(files)
        )
    if needed:
        raise UsageError(
            "--directions trajectory: name the optimizer's way with --trail, or a folder with three checkpoints or more"
        )
    return None


def relief(found: LossSurface) -> Relief | None:
    """The surface for a report, in which it can be turned; None for a line."""
    import numpy as np

    from nndoctor.reports.view import Relief

    if len(found.ys) < 2:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        heights = np.log10(found.losses)
    rows = tuple(tuple(round(float(value), 4) if np.isfinite(value) else None for value in row) for row in heights)
    way = found.trajectory
    return Relief(found.xs, found.ys, rows, None if way is None else (way.xs, way.ys))


def lines(found: LossSurface) -> Iterator[Any]:
    x, y, lowest = found.lowest
    yield f"{len(found.xs)} x {len(found.ys)} points along {found.kind} directions, loss {lowest:.4g} to {found.losses.max():.4g}"
    way = found.trajectory
    if way is not None:
        yield f"the optimizer's way: {len(way.steps)} points, the directions show {way.explained:.1%} of its variance"
    if found.centre <= lowest:
        yield f"The checkpoint, loss {found.centre:.4g}, is the lowest point of the grid."
    else:
        yield f"The checkpoint has loss {found.centre:.4g}; the lowest point of the grid, {lowest:.4g}, is at ({x:.3g}, {y:.3g})."
