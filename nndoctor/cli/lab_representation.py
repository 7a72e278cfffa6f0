"""``nndoctor lab representation``: how many dimensions layers fill, how alike they are, and when they stop changing."""

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
from nndoctor.cli.output import UsageError, columns, count

if TYPE_CHECKING:
    from nndoctor.lab.representation import Representation, SelfSimilarity

LayersOption = Annotated[
    list[str] | None,
    typer.Option("--layer", metavar="NAME", help="A layer, or a pattern such as 'block*'; repeatable.  [default: all with parameters]"),
]


def representation(
    checkpoint: CheckpointArgument = None,
    *,
    model: ModelOption,
    batches: BatchesOption,
    loss: LossOption = DEFAULT_LOSS,
    layer: LayersOption = None,
    over_time: Annotated[
        bool, typer.Option("--over-time", help="Compare the checkpoints of a folder: when does each layer stop changing?")
    ] = False,
    threshold: Annotated[float, typer.Option("--threshold", help="Similarity that counts as no change.")] = 0.99,
    max_batches: MaxBatchesOption = None,
    device: DeviceOption = None,
    work: WorkOption = None,
    figure: FigureOption = None,
    run: RunOption = None,
    json: JsonOption = False,
) -> None:
    """How many dimensions each layer fills.

    Also how alike the layers are, and with --over-time when they stop changing.
    """
    layers = tuple(layer or ())
    if over_time:
        _over_time(_folder(checkpoint), model, batches, loss, layers, threshold, max_batches, device, work, figure, run, json)
        return
    with at_work() as progress:
        from nndoctor.lab import representation as lab
        from nndoctor.lab.figures import draw_representation

        patient = patient_from(model, batches, loss, checkpoint, max_batches, device)
        try:
            found = lab.representation(patient, layers=layers, progress=progress)
        except ValueError as error:
            raise UsageError(str(error)) from error
    answer(found, list(told(found)), json=json, figure=figure, draw=draw_representation, run=run, title="Representation")


def _folder(checkpoint: Path | None) -> Path:
    if checkpoint is None or not checkpoint.is_dir():
        raise UsageError("--over-time needs a folder of checkpoints")
    return checkpoint


def _over_time(
    folder: Path,
    model: str,
    batches: str,
    loss: str,
    layers: tuple[str, ...],
    threshold: float,
    max_batches: int | None,
    device: str | None,
    work: Path | None,
    figure: Path | None,
    run: str | None,
    json: bool,
) -> None:
    with at_work() as progress:
        from nndoctor.lab import representation as lab
        from nndoctor.lab.figures import draw_self_similarity
        from nndoctor.lab.sources import checkpoint_files

        patient = patient_from(model, batches, loss, None, max_batches, device)
        try:
            found = lab.self_similarity(patient, checkpoint_files(folder), layers=layers, work=work, progress=progress)
        except ValueError as error:
            raise UsageError(str(error)) from error
    answer(found, list(told_over_time(found, threshold)), json=json, figure=figure, draw=draw_self_similarity, run=run, title="Representation over time")


def told(found: Representation) -> Iterator[Any]:
    """The result for people, line by line; the last one is the verdict."""
    rows: list[tuple[str, ...]] = [("layer", "kind", "units", "dimensions", "saturation", "most like")]
    for number, layer in enumerate(found.layers):
        rows.append(
            (
                layer.name,
                layer.kind,
                str(layer.dimension.units),
                f"{layer.dimension.intrinsic}{'' if layer.dimension.enough else ' (too few samples)'}",
                f"{layer.dimension.saturation:.2f}",
                _closest(found, number),
            )
        )
    yield from columns(rows)
    yield ""
    lowest = min(found.layers, key=lambda layer: layer.dimension.saturation)
    yield (
        f"{count(len(found.layers), 'layer')} on {count(found.samples, 'sample')}; least filled is {lowest.name}: "
        f"{lowest.dimension.intrinsic} of {lowest.dimension.units} dimensions hold {found.share:.0%} of its variance."
    )


def _closest(found: Representation, number: int) -> str:
    others = [(value, index) for index, value in enumerate(found.similarity[number]) if index != number and value == value]
    if not others:
        return ""
    value, index = max(others)
    return f"{found.layers[index].name} ({value:.2f})"


def told_over_time(found: SelfSimilarity, threshold: float) -> Iterator[Any]:
    """When each layer stops changing, line by line; the last one is the verdict."""
    converged = found.converged(threshold)
    rows: list[tuple[str, ...]] = [("layer", f"like before from ({threshold:g})", "last SVCCA", "PWCCA", "CKA")]
    for number, layer in enumerate(found.layers):
        last = [f"{found.to_previous[measure][-1][number]:.3f}" for measure in ("svcca", "pwcca", "cka")]
        rows.append((layer, converged[layer] or "not yet", *last))
    yield from columns(rows)
    yield ""
    still = [layer for layer, since in converged.items() if since is None]
    changing = f"{', '.join(still[:6])}{', ...' if len(still) > 6 else ''} still change" if still else "no layer changes any more"
    yield f"{count(len(found.layers), 'layer')} over {count(len(found.checkpoints), 'checkpoint')}: {changing}."
