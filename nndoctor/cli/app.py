"""The list of commands. Each is one small file, which is loaded only when it is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Annotated, Any

import typer

import nndoctor
from nndoctor.cli.completion import VARIABLE
from nndoctor.cli.help import Command, RunCommand
from nndoctor.cli.output import UsageError

HELP = "The doctor for neural network training: measures what happens inside and names the root cause."

BEGIN = "Begin with: nndoctor demo, then nndoctor run -- your_script.py"

COMMANDS = {
    "run": "training.run",
    "demo": "training.demo",
    "train": "train.train",
    "watch": "watch.watch",
    "ls": "ls.ls",
    "diagnose": "diagnose.diagnose",
    "report": "report.report",
    "times": "times.times",
    "predict": "predict.predict",
    "compare": "compare.compare",
    "explain": "explain.explain",
    "rules": "rules.app",
    "ack": "ack.ack",
    "check": "check.check",
    "lab": "lab.app",
    "metrics": "metrics.metrics",
    "config": "config.app",
    "completion": "completion.completion",
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
        epilog=BEGIN,
        no_args_is_help=True,
        add_completion=VARIABLE in os.environ,  # a shell asks; people have `nndoctor completion`
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_options)
    if wanted and not wanted.startswith("-"):
        _refuse_unknown(wanted, COMMANDS, "nndoctor")
    for name in [wanted] if wanted in COMMANDS else COMMANDS:
        _add(app, name, arguments if name == wanted else ())
    return app


def _refuse_unknown(word: str, known: Iterable[str], where: str) -> None:
    """Raises UsageError for a command that there is not, with the closest ones."""
    names = list(known)
    if word not in names:
        close = get_close_matches(word, names, n=2)
        if word.endswith(".py") and "run" in names:
            raise UsageError(f"{where} has no command {word!r}; to train with it: {where} run -- {word}")
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names)}"
        raise UsageError(f"{where} has no command {word!r}; {hint}")


def _add(app: typer.Typer, name: str, arguments: Sequence[str]) -> None:
    module, _, attribute = COMMANDS[name].partition(".")
    command: Any = getattr(import_module(f"nndoctor.cli.{module}"), attribute)
    if isinstance(command, typer.Typer):
        following = [argument for argument in arguments[1:2] if not argument.startswith("-")]
        if following:
            _refuse_unknown(following[0], [str(info.name) for info in command.registered_commands], f"nndoctor {name}")
        for info in command.registered_commands:
            info.cls = Command
        app.add_typer(command, name=name)
    elif name == "run":
        app.command(name, cls=RunCommand, context_settings=PASS_THROUGH)(command)
    else:
        app.command(name, cls=Command)(command)


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
