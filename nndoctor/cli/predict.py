"""``nndoctor predict``: how long training steps will take, learnt from the recorded runs of this machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nndoctor.cli.output import UsageError, columns, count, plain, say, say_json, say_lines, tell, tell_progress
from nndoctor.cli.settings import run_root

if TYPE_CHECKING:
    from rich.text import Text

    from nndoctor.reports.times_model import Network, Observed, Prediction, TimeModel


def predict(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="Predict this run's network.  [default: the newest run]")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="With this batch size.  [default: its own]")] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODULE:FUNCTION", help="Predict the network that this makes instead; it need never have run.")
    ] = None,
    input_shape: Annotated[
        list[str] | None, typer.Option("--input", metavar="32x3x224x224", help="Shape of its input, batch first; one for each. For tokens: 32x128:long.")
    ] = None,
    learn: Annotated[
        list[str] | None, typer.Option("--learn", metavar="RUN", help="Learn from these runs only; may be repeated.  [default: all in the run root]")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Tell also what so many steps will take.")] = None,
    top: Annotated[int, typer.Option(min=0, help="Layers to show, 0 for all.")] = 10,
    extrapolate: Annotated[bool, typer.Option("--extrapolate", help="Predict also what is unlike anything recorded.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Predict how long a training step takes.

    For another batch size, or for a network that has never run. Learns from recorded runs of the same machine: at least two networks, better a dozen.
    """
    from nndoctor.reports.times_model import CannotPredict
    from nndoctor.reports.times_model import learn as learn_from

    known = _recorded(learn)
    try:
        network, machine = _network(run, model, input_shape, known)
        if batch is not None:
            network = network.with_batch(batch)
        tell_progress("learning from the recorded runs ...")
        learnt = learn_from([one for one in known if one.machine == machine])
        found = learnt.predict(network, extrapolate)
    except CannotPredict as error:
        raise UsageError(f"{error}{'' if extrapolate else ' (--extrapolate)' if 'extrapolate knowingly' in str(error) else ''}") from error
    except ValueError as error:
        raise UsageError(str(error)) from error
    if as_json:
        say_json(_as_dict(found, learnt, steps))
        return
    say_lines(_lines(found, top))
    if found.extrapolated:
        tell(f"extrapolated: {count(len(found.extrapolated), 'layer')} with {100 * found.extrapolated_share:.0f} % of the time ({', '.join(found.extrapolated[:3])})")
    say(_verdict(found, learnt, steps))


def _recorded(learn: list[str] | None) -> list[Observed]:
    """The recorded networks that can be learnt from; what cannot be read is left out."""
    from nndoctor.record import RecordError, RecordReader, find_run, list_runs
    from nndoctor.reports.times_model import observe

    root = run_root()
    folders = [find_run(name, root) for name in learn] if learn else [summary.folder for summary in list_runs(root) if summary.problem is None]
    found = []
    for folder in folders:
        try:
            with RecordReader(folder) as reader:
                one = observe(reader)
        except (RecordError, OSError):
            one = None
        if one is not None:
            found.append(one)
    if not found:
        raise UsageError(f"no run in {root} has layer times: train with nndoctor.wrap(...) first")
    return found


def _network(run: str | None, model: str | None, shapes: Sequence[str] | None, known: Sequence[Observed]) -> tuple[Network, str]:
    """The network to predict, and the machine to learn about: its own, or that of most runs."""
    from nndoctor.record import RecordReader, find_run
    from nndoctor.reports.times_model import observe

    if model is not None:
        if not shapes:
            raise UsageError("--model needs --input, the shape of what the model reads, batch first: --input 32x3x224x224")
        machines = [one.machine for one in known]
        return _never_run(model, shapes), max(set(machines), key=machines.count)
    folder = find_run(run, run_root())
    with RecordReader(folder) as reader:
        one = observe(reader)
    if one is None:
        raise UsageError(f"{folder.name} has no layer times, so its layers are not known; another run, or --model MODULE:FUNCTION --input SHAPE")
    return one.network, one.machine


def _never_run(model: str, shapes: Sequence[str]) -> Network:
    """The work of a network that a factory makes, from shapes alone."""
    from nndoctor.examinations.layer_work import count_work
    from nndoctor.lab.sources import SourceError, named_object
    from nndoctor.reports.times_model import LayerWork, Network

    sizes = [_shape(text) for text in shapes]
    try:
        made = named_object(model)()
        counted = count_work(made, sizes, integers=any(text.endswith(":long") for text in shapes))
    except (SourceError, RuntimeError, TypeError) as error:
        raise UsageError(f"{model}: {error}") from error
    layers = tuple(
        LayerWork(
            one.name,
            one.kind,
            sum(float("nan") if work.flops is None else work.flops for work in one.work),
            float(sum(work.bytes for work in one.work) - one.parameter_bytes * len(one.work)),
            float(one.parameter_bytes),
            float(sum(work.steps for work in one.work)),
            one.first,
        )
        for one in counted
    )
    parameters = [param.numel() for param in made.parameters()]
    return Network(model.rpartition(":")[2], layers, float(sum(parameters)), len(parameters), float(sizes[0][0]))


def _shape(text: str) -> list[int]:
    if not re.fullmatch(r"\d+(x\d+)*(:long)?", text):
        raise UsageError(f"--input: expected sizes like 32x3x224x224, or 32x128:long for whole numbers, got {text!r}")
    return [int(size) for size in text.removesuffix(":long").split("x")]


def _lines(found: Prediction, top: int) -> list[Text]:
    order = sorted(range(len(found.layers)), key=lambda n: -sum(found.layers[n]))
    shown = order[:top] if top else order
    rows: list[Sequence[str | Text]] = [[plain(word, "bold") for word in ("share", "forward", "backward", "layer", "kind")]]
    for n in shown:
        forward, backward = found.layers[n]
        layer = found.network.layers[n]
        rows.append([f"{100 * (forward + backward) / found.step:.1f} %", _time(forward), _time(backward), layer.name, layer.kind])
    lines = columns(rows)
    if len(shown) < len(order):
        lines.append(plain(f"and {len(order) - len(shown)} more (--top 0 shows all)", "dim"))
    return lines


def _verdict(found: Prediction, learnt: TimeModel, steps: int | None) -> str:
    batch = f", batch {found.network.batch:g}" if found.network.batch > 0 else ""
    total = f", {count(steps, 'step')} {_time(steps * found.step)}" if steps else ""
    return (
        f"{found.network.name}{batch}: {_time(found.step)} per step ({_time(found.low)} to {_time(found.high)}){total}; learnt from "
        f"{count(learnt.networks, 'network')}, of which left-out ones were met within {100 * learnt.step_error:.0f} % on average."
    )


def _as_dict(found: Prediction, learnt: TimeModel, steps: int | None) -> dict[str, Any]:
    return {
        "network": found.network.name,
        "batch": found.network.batch,
        "step": found.step,
        "low": found.low,
        "high": found.high,
        "total": None if steps is None else steps * found.step,
        "optimizer": found.optimizer,
        "outside": found.outside,
        "layers": [
            {**asdict(layer), "forward": times[0], "backward": times[1]} for layer, times in zip(found.network.layers, found.layers, strict=True)
        ],
        "extrapolated": list(found.extrapolated),
        "extrapolated_share": found.extrapolated_share,
        "learnt_from": learnt.networks,
        "machine": learnt.machine,
        "step_error": learnt.step_error,
        "layer_error": learnt.layer_error,
    }


def _time(seconds: float) -> str:
    from nndoctor.reports.charts import duration

    return duration(seconds).replace("\u202f", " ")
