"""``nndoctor report``: the report of a recorded run, as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from nndoctor.cli.browser import shown
from nndoctor.cli.diagnose import RulesOption, RunArgument, judged
from nndoctor.cli.output import say, say_json, say_raw, tell
from nndoctor.cli.settings import run_root

FILES = {
    "html": "report.html", "json": "report.json", "md": "report.md", "text": "report.txt", "sarif": "report.sarif",
    "junit": "report-junit.xml", "github": "report-github.txt",
}  # fmt: skip
"""Format to the file in the run's folder that it is written to."""


def report(
    run: RunArgument = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="Where to write it, - for stdout.  [default: report.html in the run's folder]"
        ),
    ] = None,
    format: Annotated[
        Literal["html", "json", "md", "text", "sarif", "junit", "github"] | None,
        typer.Option(help="Format.  [default: by the suffix of --out, else html]"),
    ] = None,
    rules: RulesOption = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Say as JSON where it was written, and the verdict.")] = False,
) -> None:
    """Write the report of a run: one file, offline.

    The run may still be running, or have been killed.
    """
    from nndoctor.reports import render_report, write_report

    folder, view = judged(run, rules, run_root())
    if out == Path("-"):
        say_raw(render_report(view, format or "html"))
        return
    path = out if out is not None else folder / FILES[format or "html"]
    written = write_report(view, path, format)
    if show and not shown(written):
        tell(f"no browser could be started; open {written}")
    if json:
        say_json({"report": str(written), "verdict": view.diagnosis.verdict})
        return
    say(f"report: {written}")
    say(view.diagnosis.verdict)
