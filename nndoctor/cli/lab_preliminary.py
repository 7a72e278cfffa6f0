"""``nndoctor lab preliminary``: were the epochs needed, and is the test set large enough to tell?"""

from __future__ import annotations

from collections.abc import Iterator
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
    answer,
    at_work,
    patient_from,
)
from nndoctor.cli.output import columns, count

if TYPE_CHECKING:
    from nndoctor.lab.preliminary import Preliminary

def preliminary(
    checkpoints: Annotated[Path, typer.Argument(help="A folder of checkpoints of one training, or one checkpoint.")],
    *,
    model: ModelOption,
    batches: BatchesOption,
    loss: LossOption = DEFAULT_LOSS,
    gain: Annotated[float, typer.Option("--gain", help="Accuracy that a further checkpoint has to bring.")] = 0.002,
    subsets: Annotated[int, typer.Option("--subsets", min=2, help="Random subsets of each size.")] = 100,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw.")] = 0,
    max_batches: MaxBatchesOption = None,
    device: DeviceOption = None,
    figure: FigureOption = None,
    run: RunOption = None,
    json: JsonOption = False,
) -> None:
    """When training could have stopped.

    From which checkpoint on nothing was gained, and how far the accuracy depends on which samples it is measured with.

    Give it the test set.
    """
    with at_work() as progress:
        from nndoctor.lab import preliminary as lab
        from nndoctor.lab.figures import draw_preliminary
        from nndoctor.lab.sources import checkpoint_files

        files = checkpoint_files(checkpoints)
        patient = patient_from(model, batches, loss, files[-1], max_batches, device)
        found = lab.preliminary(patient, files, gain=gain, subsets=subsets, seed=seed, progress=progress)
    answer(found, list(told(found)), json=json, figure=figure, draw=draw_preliminary, run=run, title="Preliminary experiments")


def told(found: Preliminary) -> Iterator[Any]:
    """The result for people, line by line; the last one is the verdict."""
    points = found.training.points
    rows: list[tuple[str, ...]] = [("checkpoint", "loss", "accuracy")]
    rows.extend((point.name, f"{point.loss:.4g}", "" if point.accuracy is None else f"{point.accuracy:.2%}") for point in points)
    yield from columns(rows)
    yield ""
    if found.stability is not None:
        header = ("test samples", "accuracy varies by", "drawing alone predicts")
        spreads = [(str(s.size), f"{100 * s.deviation:.2f} points", f"{100 * s.expected:.2f}") for s in found.stability.spreads]
        yield from columns([header, *spreads])
        yield ""
    yield verdict(found)


def verdict(found: Preliminary) -> str:
    """One sentence on the checkpoints, one on the test set."""
    points, enough = found.training.points, found.training.enough
    if len(points) == 1:
        said = []
    elif enough == points[-1]:
        said = ["It was still getting better at the last checkpoint."]
    else:
        said = [f"After {enough.name} nothing brought more than {found.training.gain:.1%}: {count(len(points) - 1 - points.index(enough), 'checkpoint')} in vain."]
    if found.stability is not None:
        p, n = found.stability.accuracy, found.stability.samples
        said.append(f"Accuracy {p:.2%} ± {(p * (1 - p) / n) ** 0.5:.2%} on {n} samples: smaller differences between models are chance.")
    return " ".join(said) or f"Loss {points[-1].loss:.4g}."
