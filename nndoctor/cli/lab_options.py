"""Options that the sub-commands of ``nndoctor lab`` share, and what they do with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nndoctor.cli.output import UsageError, say_json, say_lines, tell

if TYPE_CHECKING:
    from nndoctor.lab import Patient, Progress, Result
    from nndoctor.reports.view import Relief

CheckpointArgument = Annotated[
    Path | None,
    typer.Argument(metavar="[CHECKPOINT]", help="A file with a state dict, or a folder of them.  [default: the model as it is made]"),
]
ModelOption = Annotated[str, typer.Option("--model", metavar="MODULE:FUNCTION", help="Makes the model.")]
BatchesOption = Annotated[
    str, typer.Option("--batches", metavar="MODULE:FUNCTION", help="Makes a DataLoader, or an iterable of (inputs, targets).")
]
LossOption = Annotated[
    str, typer.Option("--loss", metavar="MODULE:FUNCTION", help="loss(output, targets); none: the output holds it.")
]
MaxBatchesOption = Annotated[int | None, typer.Option("--max-batches", min=1, help="Read no more batches than these.  [default: all]")]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda, ...  [default: where the model is made]")]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]
FigureOption = Annotated[Path | None, typer.Option("--figure", metavar="FILE", help="Draw it: .png, .svg or .pdf (needs nndoctor[lab]).")]
WorkOption = Annotated[
    Path | None, typer.Option("--work", metavar="FOLDER", help="Keep finished pieces here; a killed examination goes on from them.")
]


def _found(run: str | None) -> str | None:
    """The folder of the run, before hours are spent on something that has no place."""
    if run is None:
        return None
    from nndoctor.cli.settings import run_root
    from nndoctor.record import find_run

    return str(find_run(run, run_root()))


RunOption = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="RUN",
        callback=_found,
        help="Keep result and figure with this run, for its report; a folder or any part of its name.",
    ),
]
DEFAULT_LOSS = "torch.nn.functional:cross_entropy"


@contextmanager
def at_work() -> Iterator[Progress]:
    """Progress bars on stderr; what the user can mend becomes a usage error."""
    from nndoctor.lab.figures import FiguresUnavailable
    from nndoctor.lab.progress import progress_bars
    from nndoctor.lab.sources import SourceError

    try:
        with progress_bars() as progress:
            yield progress
    except (SourceError, FiguresUnavailable) as error:
        raise UsageError(str(error)) from error


def patient_from(
    model: str, batches: str, loss: str, checkpoint: Path | None, max_batches: int | None, device: str | None
) -> Patient:
    """The patient that the shared options describe. Raises UsageError where there is none; call it inside `at_work`."""
    from nndoctor.lab.sources import load_patient

    return load_patient(model, batches, loss=loss, checkpoint=checkpoint, max_batches=max_batches, device=device)


def answer(
    result: Result,
    lines: list[Any],
    *,
    json: bool,
    figure: Path | None,
    draw: Callable[[Any], Any],
    run: str | None = None,
    title: str = "",
    relief: Relief | None = None,
) -> None:
    """The result on stdout, as `lines` for people or as JSON; with `figure` also drawn by ``draw(result)``.

    Args:
        run, title, relief: keep it with this run, under this title, for its report, where `relief` can be turned.
    """
    from nndoctor.lab.figures import FiguresUnavailable, save_figure

    try:
        drawn = None if figure is None and run is None else draw(result)
    except FiguresUnavailable as error:
        if figure is not None:
            raise UsageError(str(error)) from error
        drawn = None
    if figure is not None:
        tell(f"wrote {save_figure(drawn, figure)}")
    if run is not None:
        tell(f"kept with the run: {keep(Path(run), title, lines, drawn, relief)}")
    if json:
        say_json(result.to_dict())
        return
    say_lines(lines)


def keep(folder: Path, title: str, lines: list[Any], drawn: Any, relief: Relief | None = None) -> Path:
    """Put lines and figure into the folder of a run; returns the file."""
    from io import BytesIO

    from nndoctor.reports.view import LabResult, keep_lab_result

    picture = BytesIO()
    if drawn is not None:
        drawn.savefig(picture, format="png", dpi=110)
    return keep_lab_result(folder, LabResult(title, tuple(map(str, lines)), picture.getvalue() or None, relief))
