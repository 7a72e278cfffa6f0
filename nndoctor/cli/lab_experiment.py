"""``nndoctor lab experiment``: put a published claim to the test on small data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nndoctor.cli.lab_options import FigureOption, JsonOption, at_work
from nndoctor.cli.output import UsageError, columns, say, say_json, say_lines, tell

if TYPE_CHECKING:
    from nndoctor.zoo.experiments import Experiment, Finished, Judgement

WORK = Path(".nndoctor/experiments")


def experiment(
    names: Annotated[list[str] | None, typer.Argument(metavar="[E1 ...]", help="Which; all, or list.  [default: list]")] = None,
    *,
    seeds: Annotated[str | None, typer.Option("--seeds", help="As 0,1,2.  [default: the experiment's own, mostly 0,1,2]")] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FOLDER", help="Holds mnist.npz, cifar10.npz.  [default: NNDOCTOR_TEST_DATA, or the images that ship]"),
    ] = None,
    work: Annotated[Path, typer.Option("--work", metavar="FOLDER", help="Finished seeds are kept here, and taken from here.")] = WORK,
    figure: FigureOption = None,
    json: JsonOption = False,
) -> None:
    """Put a published claim to the test.

    Trains on small data with several seeds, and lets the claim's own criterion decide. A verdict is reproduced, contradicted, artefact (the effect follows from how it was measured), or open.
    """
    asked = names or ["list"]
    with at_work() as progress:
        from nndoctor.zoo.data import DataUnavailable
        from nndoctor.zoo.experiments import EXPERIMENTS, Bench, UnknownExperiment, experiment_named, judgement

        if asked == ["list"]:
            _list(EXPERIMENTS, json)
            return
        try:
            chosen = EXPERIMENTS if asked == ["all"] else tuple(map(experiment_named, asked))
        except UnknownExperiment as error:
            raise UsageError(str(error)) from error
        if figure is not None and len(chosen) > 1:
            raise UsageError("--figure: expected one experiment for one figure")
        wanted = _numbers(seeds)
        bench = Bench(work, data)
        answers = []
        for each in chosen:
            try:
                found = bench.run(each, wanted, progress)
            except DataUnavailable as error:
                raise UsageError(str(error)) from error
            verdict = judgement(each, found)
            answers.append(_as_dict(each, found, verdict))
            if not json:
                _tell(each, found, verdict)
        if figure is not None:
            _draw(chosen[0], found, figure)
    if json:
        say_json(answers if len(answers) > 1 else answers[0])


def _list(experiments: Sequence[Experiment], json: bool) -> None:
    if json:
        say_json([{"id": each.id, "title": each.title, "claim": each.claim, "source": each.source} for each in experiments])
        return
    say_lines(columns([(each.id, each.title, each.source.partition(",")[0]) for each in experiments]))


def _numbers(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--seeds: expected numbers such as 0,1,2, got {text!r}") from error


def _tell(experiment: Experiment, found: Sequence[Finished], verdict: Judgement) -> None:
    say(f"{experiment.id}: {experiment.claim}")
    say(f"from {experiment.source.replace('*', '')}")
    say()
    header = ("", *(f"seed {each.seed}" for each in found))
    say_lines(columns([header, *_rows(experiment, found)]))
    say()
    say(f"holds if: {experiment.criterion}")
    say(f"images: {', '.join(dict.fromkeys(each.images for each in found))}; {sum(each.seconds for each in found):.0f} s of processor time")
    say(f"{verdict.verdict}: {verdict.reason}")
    say()


def _rows(experiment: Experiment, found: Sequence[Finished]) -> Iterator[tuple[str, ...]]:
    for name in experiment.shown:
        yield name, *(f"{each.measured[name]:.4g}" for each in found)


def _as_dict(experiment: Experiment, found: Sequence[Finished], verdict: Judgement) -> dict[str, Any]:
    return {
        "id": experiment.id,
        "claim": experiment.claim,
        "source": experiment.source,
        "criterion": experiment.criterion,
        "setup": experiment.protocol.setup,
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "runs": [each.to_dict() for each in found],
    }


def _draw(experiment: Experiment, found: Sequence[Finished], path: Path) -> None:
    from nndoctor.lab.figures import save_figure
    from nndoctor.zoo.experiments.figures import draw_experiment

    tell(f"wrote {save_figure(draw_experiment(experiment, [each.measured for each in found]), path)}")
