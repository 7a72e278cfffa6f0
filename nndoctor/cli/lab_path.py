"""``nndoctor lab path``: loss along the way from the first checkpoint to the last, and which layers are critical."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nndoctor.cli.lab_options import (
    DEFAULT_LOSS,
    BatchesOption,
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
from nndoctor.cli.output import UsageError, columns

if TYPE_CHECKING:
    from nndoctor.lab import Patient
    from nndoctor.lab.impacts import LayerImpacts
    from nndoctor.lab.paths import Paths
    from nndoctor.lab.shapes import PathComparison

LEVELS = ("model", "layer", "parameter", "compare", "critical")


def path(
    checkpoints: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Checkpoints of one training, the initial one included.")
    ],
    *,
    model: ModelOption,
    batches: BatchesOption,
    loss: LossOption = DEFAULT_LOSS,
    level: Annotated[
        str,
        typer.Option(
            "--level",
            metavar="|".join(LEVELS),
            help="What moves; or straight, curved and real path together; or which layers can be put back.",
        ),
    ] = "model",
    points: Annotated[int, typer.Option("--points", min=3, help="Points of each path.")] = 21,
    layers: Annotated[
        list[str] | None, typer.Option("--layer", help="This layer only; may be repeated.  [default: all]")
    ] = None,
    parameters: Annotated[int, typer.Option("--parameters", min=1, help="Parameters drawn in every layer.")] = 20,
    draws: Annotated[
        int, typer.Option("--draws", min=0, help="For critical: how often a layer is also given new random weights.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw.")] = 0,
    recompute_batchnorm: Annotated[
        bool, typer.Option("--recompute-batchnorm", help="Gather running statistics anew at every point.")
    ] = False,
    max_batches: MaxBatchesOption = None,
    device: DeviceOption = None,
    work: WorkOption = None,
    figure: FigureOption = None,
    run: RunOption = None,
    json: JsonOption = False,
) -> None:
    """The loss on the way from start to end of a training.

    On the straight way between its first and last checkpoint, and on the curved one: the parabola through the checkpoint in the middle of the training.
    """
    if level not in LEVELS:
        raise UsageError(f"--level: expected {', '.join(LEVELS)}, got {level!r}")
    with at_work() as progress:
        from nndoctor.lab.sources import checkpoint_files

        files = checkpoint_files(checkpoints)
        if len(files) < 2:
            raise UsageError(f"{checkpoints}: expected the initial and the trained checkpoint, found {len(files)}")
        patient = patient_from(model, batches, loss, files[-1], max_batches, device)
        low, width = (-0.5, 2.0) if level == "parameter" else (0.0, 1.0)
        shared: dict[str, Any] = {
            "alphas": tuple(low + width * index / (points - 1) for index in range(points)),
            "recompute_batchnorm": recompute_batchnorm,
            "work": work,
            "progress": progress,
        }
        drawn = {"parameter": {"elements": parameters, "seed": seed}, "critical": {"draws": draws}}.get(level, {})
        try:
            found, lines, draw = examined(patient, files, level, layers, {**shared, **drawn})
        except ValueError as error:
            raise UsageError(str(error)) from error
    answer(found, list(lines), json=json, figure=figure, draw=draw, run=run, title=f"Paths: {level}")


def examined(
    patient: Patient, files: Sequence[Path], level: str, layers: list[str] | None, options: dict[str, Any]
) -> tuple[Any, Iterator[Any], Any]:
    """What is found at `level`, as lines, and what draws it."""
    from nndoctor.lab import landscape_figures as figures
    from nndoctor.lab import paths, shapes
    from nndoctor.lab.impacts import layer_impacts

    first, steps = files[0], steps_of(files)
    if level == "critical":
        few = {name: options[name] for name in ("recompute_batchnorm", "work", "progress")}
        impacts = layer_impacts(patient, first, layers=layers, draws=options["draws"], **few)
        return impacts, impact_lines(impacts), figures.draw_impacts
    options["middle"] = files[middle_of(steps)] if len(files) > 2 else None
    if level == "compare":
        both = paths.model_paths(patient, first, **options)
        real = paths.real_path(patient, files, steps=steps, work=options["work"], progress=options["progress"])
        comparison = shapes.compared(real, *both.curves)
        return comparison, comparison_lines(comparison), figures.draw_comparison
    if level == "parameter":
        found = paths.parameter_paths(patient, first, **options)
    elif level == "layer":
        found = paths.layer_paths(patient, first, layers=layers, **options)
    else:
        found = paths.model_paths(patient, first, **options)
    return found, path_lines(found), figures.draw_paths


def steps_of(files: Sequence[Path]) -> list[int]:
    """The last number in each name; the places in the order where names hold none, or do not ascend."""
    numbers = [re.findall(r"\d+", file.stem) for file in files]
    steps = [int(found[-1]) if found else -1 for found in numbers]
    ascending = all(a < b for a, b in pairwise(steps)) and steps[0] >= 0
    return steps if ascending else list(range(len(files)))


def middle_of(steps: Sequence[int]) -> int:
    """The index of the checkpoint nearest to the middle of the training, of those between its ends."""
    half = (steps[0] + steps[-1]) / 2
    return min(range(1, len(steps) - 1), key=lambda index: abs(steps[index] - half))


def path_lines(found: Paths) -> Iterator[Any]:
    from nndoctor.lab.shapes import curve_shape

    rows = [("moves", "path", "at 0", "half way", "at 1", "barrier", "shape", "travelled")]
    for curve in found.curves:
        half = min(range(len(curve.alphas)), key=lambda index: abs(curve.alphas[index] - 0.5))
        ends = [loss for alpha, loss in zip(curve.alphas, curve.losses, strict=True) if alpha in (0.0, 1.0)]
        first, last = (f"{ends[0]:.4g}", f"{ends[-1]:.4g}") if len(ends) == 2 else ("", "")
        try:
            shape = curve_shape(curve.alphas, curve.losses).shape
        except ValueError:
            shape = "flat" if len(set(curve.losses)) == 1 else "wave"
        rows.append(
            (
                curve.target,
                curve.kind,
                first,
                f"{curve.losses[half]:.4g}",
                last,
                f"{curve.barrier:.3g}",
                shape,
                f"{curve.travelled:.3g}",
            )
        )
    yield from columns(rows)
    yield ""
    worst = max(found.curves, key=lambda curve: -1.0 if curve.barrier != curve.barrier else curve.barrier)
    yield f"{len(found.curves)} paths; the highest barrier is {worst.barrier:.3g}, on the {worst.kind} path of {worst.target}."


def comparison_lines(found: PathComparison) -> Iterator[Any]:
    yield f"the optimizer's loss is below the straight path on {found.real_below_linear:.0%} of the way"
    if found.real_below_quadratic is not None:
        yield f"and below the curved path on {found.real_below_quadratic:.0%} of it (half way they are the same point by construction)"
    meets = [
        f"{kind} from {place:.2f} on"
        for kind, place in (("straight", found.linear_meets), ("curved", found.quadratic_meets))
        if place is not None
    ]
    yield f"as good as the optimizer: {', '.join(meets) or 'neither path before the end'}."


def impact_lines(found: LayerImpacts) -> Iterator[Any]:
    rows = [("layer", "initial: loss", "accuracy", "random: loss", "travelled", "relative", "")]
    for row in found.layers:
        random = "" if row.random_loss_change is None else f"{row.random_loss_change:+.4g} ± {row.random_spread:.2g}"
        rows.append(
            (
                row.layer,
                f"{row.loss_change:+.4g} ± {row.standard_error:.2g}",
                "" if row.accuracy_change is None else f"{row.accuracy_change:+.1%}",
                random,
                f"{row.travelled:.3g}",
                f"{row.relative:.2g}",
                "critical" if row.critical else "ambient",
            )
        )
    yield from columns(rows)
    yield ""
    critical = found.critical
    verdict = f"{len(critical)} of {len(found.layers)} layers are critical (limit {found.limit:.0%})"
    yield f"{verdict}{': ' if critical else ''}{', '.join(critical)}."
