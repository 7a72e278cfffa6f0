"""The list of commands. Each is one small file, which is loaded only when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

import nndoctor

HELP = "The doctor for neural network training: measures what happens inside and names the root cause."

COMMANDS = {
    "run": "training.run",
    "demo": "training.demo",
    "train": "train.train",
    "watch": "watch.watch",
    "ls": "ls.ls",
    "diagnose": "diagnose.diagnose",
    "report": "report.report",
    "times": "times.times",
    "compare": "compare.compare",
    "explain": "explain.explain",
    "rules": "rules.app",
    "check": "check.check",
    "lab": "lab.app",
    "config": "config.app",
}
"""Command to the function, or the group of commands, that does it."""

PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": False, "allow_interspersed_args": False}
"""For ``run``: options end at the first word that is none; what follows belongs to the script."""


def app_for(arguments: Sequence[str]) -> typer.Typer:
    """The application with the one command that `arguments` ask for, or with all where that is not clear.

    Describing a command to Typer takes milliseconds, all of them together as long as answering.
    """
    wanted = arguments[0] if arguments else ""
    app = typer.Typer(
        name="nndoctor",
        help=HELP,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_options)
    for name in [wanted] if wanted in COMMANDS else COMMANDS:
        _add(app, name)
    return app


def _add(app: typer.Typer, name: str) -> None:
    module, _, attribute = COMMANDS[name].partition(".")
    command: Any = getattr(import_module(f"nndoctor.cli.{module}"), attribute)
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name)
    else:
        app.command(name, context_settings=PASS_THROUGH if name == "run" else None)(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nndoctor {nndoctor.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Options of the command as a whole; its help is HELP."""
