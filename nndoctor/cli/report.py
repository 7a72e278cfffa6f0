"""``nndoctor report``: the report of a recorded run, as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from nndoctor.cli.diagnose import RulesOption, RunArgument, judged
from nndoctor.cli.output import say, say_raw
from nndoctor.cli.settings import run_root

SUFFIX = {"html": "html", "json": "json", "md": "md", "text": "txt"}


def report(
    run: RunArgument = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="Where to write it, - for stdout.  [default: report.html in the run's folder]"
        ),
    ] = None,
    format: Annotated[
        Literal["html", "json", "md", "text"] | None,
        typer.Option(help="Format.  [default: by the suffix of --out, else html]"),
    ] = None,
    rules: RulesOption = None,
) -> None:
    """Write the report of a run: one file, offline.

    The run may still be running, or have been killed.
    """
    from nndoctor.reports import render_report, write_report

    folder, view = judged(run, rules, run_root())
    if out == Path("-"):
        say_raw(render_report(view, SUFFIX[format or "html"]))
        return
    path = out if out is not None else folder / f"report.{SUFFIX[format or 'html']}"
    written = write_report(view, path, SUFFIX[format] if format else None)
    say(f"report: {written}")
    say(view.diagnosis.verdict)
