"""``nndoctor run`` and ``nndoctor demo``: the two commands that train. What they do is in ``run.py`` and ``demo.py``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from nndoctor.cli.output import UsageError
from nndoctor.cli.settings import UI_CHOICES, Value, load_settings

UiOption = Annotated[
    str | None, typer.Option(metavar="|".join(UI_CHOICES), help="The live panel.  [default: the setting ui]")
]


def run(
    context: typer.Context,
    module: Annotated[bool, typer.Option("-m", help="Run a module instead of a script: nndoctor run -m package.module.")] = False,
    rules: Annotated[
        list[str] | None,
        typer.Option("--rules", metavar="RULESET", help="core, a file or package:name; may be repeated."),
    ] = None,
    ui: UiOption = None,
    budget: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Share of the step time that the doctor may cost.  [default: the setting budget]")
    ] = None,
    cadence: Annotated[
        int | None, typer.Option(min=1, help="Measure every so many steps instead of by budget.")
    ] = None,
    eager_every: Annotated[
        int | None,
        typer.Option(min=2, help="Run every so many-th step of a compiled model uncompiled, which measures its layers."),
    ] = None,
    time_every_step: Annotated[
        bool, typer.Option("--time-every-step", help="Record the layer times of every step, for nndoctor times.")
    ] = False,
    run_dir: Annotated[Path | None, typer.Option(help="Folder of the run record.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run.  [default: the script's]")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a report there at the end.")] = None,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the diagnosis there as JSON at the end.")
    ] = None,
    said: Annotated[
        list[str] | None,
        typer.Option(
            "--context",
            metavar="KIND=yes|no",
            help="What the run is or is not (gan=no), where the doctor errs; may be repeated.",
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME[:layers=GLOB,every=N]",
            help="Measure that, too; see nndoctor metrics; may be repeated.",
        ),
    ] = None,
    checkup: Annotated[
        bool, typer.Option("--checkup", help="Examine model, loss and batch at the first backward, then go on.")
    ] = False,
    checkup_only: Annotated[
        bool, typer.Option("--checkup-only", help="Stop after the checkup; exits with 1 if something failed.")
    ] = False,
    checkup_json: Annotated[
        Path | None, typer.Option(help="Write the checkup there as JSON; implies --checkup.")
    ] = None,
    checkup_seconds: Annotated[float, typer.Option(min=0.0, help="Time that the checkup may take.")] = 10.0,
) -> None:
    """Run a training script with the doctor attached.

    nndoctor run -- train.py --lr 0.1: the script stays as it is. The script's own exit code is passed through.
    """
    from nndoctor.cli.run import CheckupOptions, RunOptions, run_script

    settings = load_settings()
    script = ["-m", *context.args] if module else context.args
    wanted = checkup or checkup_only or checkup_json is not None
    options = RunOptions(
        rules=tuple(rules) if rules else settings["rules"].value,
        ui=checked_ui(ui, settings),
        budget=settings["budget"].value if budget is None else budget,
        cadence=settings["cadence"].value if cadence is None else cadence,
        eager_every=eager_every,
        time_every_step=time_every_step,
        run_dir=run_dir if run_dir is not None else _configured_folder(script, name, settings),
        name=name,
        report=report,
        json=json,
        context=checked_words(said or ()),
        checkup=CheckupOptions(checkup_only, checkup_json, checkup_seconds) if wanted else None,
        metrics=tuple(metrics or ()),
    )
    raise typer.Exit(run_script(script, options))


def demo(
    case: Annotated[
        str | None, typer.Argument(metavar="CASE", help="A case of the zoo, or a diagnosis; see --list.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps of each run.")] = None,
    ui: UiOption = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Where the report goes.  [default: nndoctor-demo.html]")
    ] = None,
    list_cases: Annotated[bool, typer.Option("--list", help="List the cases and do nothing else.")] = False,
    show: Annotated[
        bool | None, typer.Option("--open/--no-open", help="Open the report in the browser.  [default: at a desktop]")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Watch a sick model being diagnosed and cured.

    Trains it on real pictures, applies the doctor's own fix, and shows both runs in one report.
    """
    from nndoctor.cli.demo import demo as train_and_show

    raise typer.Exit(train_and_show(case, steps, checked_ui(ui, load_settings()), out, list_cases, json, show))


def checked_ui(given: str | None, settings: dict[str, Value]) -> str:
    ui: str = settings["ui"].value if given is None else given
    if ui not in UI_CHOICES:
        raise UsageError(f"--ui: expected one of {', '.join(UI_CHOICES)}, got {ui!r}")
    return ui


def checked_words(said: Sequence[str]) -> dict[str, bool]:
    """``gan=no`` and kin as kinds with yes or no.

    Raises:
        UsageError: one of them reads otherwise, or there is no such kind; the kinds are listed.
    """
    from nndoctor.signals import checked_context

    answers = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    found: dict[str, object] = {}
    for word in said:
        kind, _, answer = word.partition("=")
        found[kind.strip().replace("-", "_")] = answers.get(answer.strip().lower(), word)
    try:
        return checked_context(found)
    except ValueError as error:
        raise UsageError(f"--{error}") from error


def _configured_folder(arguments: list[str], name: str | None, settings: dict[str, Value]) -> Path | None:
    """A new folder in the configured run root; None where nothing is configured: the doctor makes its own."""
    root = settings["run_root"]
    script = next((word for word in arguments if word not in ("--", "-m")), None)
    if root.origin == "default" or script is None:
        return None
    from nndoctor.record import run_folder_name

    return Path(root.value) / run_folder_name(name or Path(script).stem, time.time())
