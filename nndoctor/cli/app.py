"""The list of commands. Each is one small file that imports what it needs when it is called."""

from __future__ import annotations

from typing import Annotated

import typer

import nndoctor
from nndoctor.cli import check, config, diagnose, explain, ls, report, rules, training, watch

app = typer.Typer(
    name="nndoctor",
    help="The doctor for neural network training: measures what happens inside and names the root cause.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nndoctor {nndoctor.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """The doctor for neural network training: measures what happens inside and names the root cause."""


app.command("run", context_settings=training.PASS_THROUGH)(training.run)
app.command("demo")(training.demo)
app.command("watch")(watch.watch)
app.command("ls")(ls.ls)
app.command("diagnose")(diagnose.diagnose)
app.command("report")(report.report)
app.command("explain")(explain.explain)
app.add_typer(rules.app, name="rules")
app.command("check")(check.check)
app.add_typer(config.app, name="config")
