"""``nndoctor lab unhelpful-layers``: which layers and blocks the loss does not need, and what going without them saves."""

from __future__ import annotations

from collections.abc import Iterator
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
from nndoctor.cli.output import columns, count, plain

if TYPE_CHECKING:
    from nndoctor.lab.unhelpful import LayerEffect, UnhelpfulLayers

STYLES = {"can go": "green", "undecided": "yellow", "needed": ""}


def unhelpful_layers(
    checkpoint: CheckpointArgument = None,
    *,
    model: ModelOption,
    batches: BatchesOption,
    loss: LossOption = DEFAULT_LOSS,
    margin: Annotated[
        float | None, typer.Option("--margin", help="Rise of the loss that counts as none.  [default: its standard error]")
    ] = None,
    max_batches: MaxBatchesOption = None,
    device: DeviceOption = None,
    work: WorkOption = None,
    figure: FigureOption = None,
    run: RunOption = None,
    json: JsonOption = False,
) -> None:
    """Which layers and blocks can go.

    Each is left out in turn and the loss is compared, sample by sample. Give it batches that were held out from training.
    """
    with at_work() as progress:
        from nndoctor.lab import unhelpful as lab
        from nndoctor.lab.figures import draw_unhelpful_layers

        patient = patient_from(model, batches, loss, checkpoint, max_batches, device)
        found = lab.unhelpful_layers(patient, margin=margin, work=work, progress=progress)
    answer(found, list(told(found)), json=json, figure=figure, draw=draw_unhelpful_layers, run=run, title="Layers that can go")


def told(found: UnhelpfulLayers) -> Iterator[Any]:
    """The result for people, line by line; the last one is the verdict."""
    header = ("layer", "kind", "verdict", "without it", "parameters", "memory", "forward", "step")
    yield from columns([header, *(_row(effect) for effect in found.effects)])
    for name, reason in found.not_examined:
        yield f"{name} was not examined: {reason}"
    yield ""
    yield (
        f"loss {found.loss:.4g} ± {found.error:.2g} on {count(found.samples, 'sample')}; "
        f"a rise of up to {found.margin:.2g} counts as none"
    )
    yield verdict(found)


def _row(effect: LayerEffect) -> tuple[Any, ...]:
    ways = {"bypass": "bypassed", "mean": "constant"}
    return (
        effect.name,
        effect.kind,
        plain(effect.verdict, STYLES[effect.verdict]),
        f"{effect.difference:+.4g} ± {effect.error:.2g} ({ways[effect.way]})",
        f"{effect.parameters:,}".replace(",", " "),
        f"{_bytes(effect.parameter_bytes)} + {_bytes(effect.activation_bytes)} a sample",
        f"{effect.forward_milliseconds:.3g} ms, {effect.forward_share:.0%}",
        "" if effect.step_share is None else f"{-effect.step_share:+.0%}",
    )


def _bytes(number: int) -> str:
    return f"{number / 1e6:.3g} MB" if number >= 1e6 else f"{number / 1e3:.3g} kB"


def verdict(found: UnhelpfulLayers) -> str:
    """One sentence: what can go at once, and what that saves."""
    if found.together is None:
        return f"All {count(len(found.effects), 'layer')} that were looked at are needed, or cannot be told from it."
    gone = found.together
    share = gone.parameters / max(1, found.parameters)
    return (
        f"{', '.join(gone.names)} can go: {gone.difference:+.4f} ± {gone.error:.4f} loss, "
        f"{-100 * gone.step_share:+.0f} % step time, {-100 * share:+.0f} % parameters. Train again without to be sure."
    )
