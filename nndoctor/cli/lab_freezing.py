"""``nndoctor lab freezing``: which layers have stopped changing, and what freezing them would save."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

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
    answer,
    at_work,
    patient_from,
)
from nndoctor.cli.output import UsageError, columns, count, plain

if TYPE_CHECKING:
    from nndoctor.lab.freezing import FreezingPlan


def freezing(
    checkpoints: Annotated[Path, typer.Argument(help="A folder of checkpoints; the last two of them are compared.")],
    *,
    model: ModelOption,
    batches: BatchesOption,
    loss: LossOption = DEFAULT_LOSS,
    earlier: Annotated[
        Path | None, typer.Option("--earlier", metavar="CHECKPOINT", help="Compare with that one.  [default: the last but one]")
    ] = None,
    threshold: Annotated[float, typer.Option("--threshold", help="Similarity that counts as no change.")] = 0.99,
    measure: Annotated[str, typer.Option("--measure", metavar="svcca|pwcca|cka", help="Of similarity.")] = "svcca",
    max_batches: MaxBatchesOption = None,
    device: DeviceOption = None,
    figure: FigureOption = None,
    run: RunOption = None,
    json: JsonOption = False,
) -> None:
    """Which layers have stopped changing.

    Each is compared with itself in the checkpoint before; said is also what freezing them would save of the backward pass.
    """
    with at_work() as progress:
        from nndoctor.lab import freezing as lab
        from nndoctor.lab.figures import draw_freezing
        from nndoctor.lab.representation import Measure
        from nndoctor.lab.sources import checkpoint_files

        if measure not in get_args(Measure):
            raise UsageError(f"--measure: expected {', '.join(get_args(Measure))}, got {measure!r}")
        files = checkpoint_files(checkpoints)
        if earlier is None and len(files) < 2:
            raise UsageError(f"{checkpoints}: expected two checkpoints or more, or an earlier one with --earlier")
        patient = patient_from(model, batches, loss, files[-1], max_batches, device)
        found = lab.freezing_plan(patient, earlier or files[-2], threshold=threshold, measure=measure, progress=progress)  # type: ignore[arg-type]
    answer(found, list(told(found)), json=json, figure=figure, draw=draw_freezing, run=run, title="Freezing")


def told(found: FreezingPlan) -> Iterator[Any]:
    """The result for people, line by line; the last one is the verdict."""
    rows: list[tuple[Any, ...]] = [("layer", "parameters", "similarity", "", "frozen up to here")]
    for layer in found.layers:
        still = layer.similarity >= found.threshold
        told = plain("converged" if still else "changes", "green" if still else "")
        saved = "" if layer.saved is None else f"{-layer.saved:+.0%} of the backward pass"
        rows.append((layer.name, f"{layer.parameters:,}".replace(",", " "), f"{layer.similarity:.4f}", told, saved))
    yield from columns(rows)
    yield ""
    yield verdict(found)


def verdict(found: FreezingPlan) -> str:
    """One sentence: what can be frozen, and what that saves."""
    if found.saved is not None:
        share = found.saved.share
        saves = f"that saves {share:.0%} of the backward pass" if share > 0 else "but no time was saved that could be measured"
        return f"{', '.join(found.ready)} can be frozen, {saves}: unchanged since the earlier checkpoint, by a similarity of {found.threshold:g} or more."
    above = f"; {count(len(found.converged), 'layer')} above it would save next to nothing" if found.converged else ""
    return f"{found.layers[0].name if found.layers else 'The lowest layer'} still changes, so nothing below it can be left out of the backward pass{above}."
