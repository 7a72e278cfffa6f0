"""``nndoctor watch``: follow a run from another terminal; it reads the record and costs the training nothing."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nndoctor.cli.diagnose import RunArgument
from nndoctor.cli.output import UsageError, say, say_raw, tell
from nndoctor.cli.settings import run_root

if TYPE_CHECKING:
    from nndoctor.findings import RuleDocs

WAIT = 0.5
"""Seconds between two looks for the first run."""


def watch(
    run: RunArgument = None,
    once: Annotated[bool, typer.Option("--once", help="Show the run as it is now and end.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Show the run as it is now, as JSON, and end.")] = False,
    reset: Annotated[
        bool, typer.Option("--reset", help="Give the terminal back after a training that was killed, and end.")
    ] = False,
) -> None:
    """Follow a run live from another terminal.

    Any machine that sees the run's folder will do. q ends it; the training goes on. Without RUN it may be started
    first: it waits for a run, and goes on to the next one when that has ended.
    """
    if reset:
        _reset()
        return
    from nndoctor.record import find_run
    from nndoctor.reports import watch as screen

    live = not (json or once) and sys.stdin.isatty() and sys.stdout.isatty()
    folder = _first_run(run_root()) if run is None and live else find_run(run, run_root())
    if json:
        say_raw(screen.once(folder, as_json=True) + "\n")
    elif once:
        say(screen.once(folder, ascii=_is_ascii()))
    else:
        raise typer.Exit(screen.watch(folder, callbacks=screen.Callbacks(_write_report, _docs_of, _accept), newest=run is None))


def _first_run(root: Path) -> Path:
    """The newest run; where there is none yet, the first that begins."""
    from nndoctor.record import find_run, list_runs

    if not any(summary.problem is None for summary in list_runs(root)):
        tell(f"Waiting for the first run in {root.resolve()} (Ctrl-C ends this).")
        while not any(summary.problem is None for summary in list_runs(root)):
            time.sleep(WAIT)
    return find_run(None, root)


def _reset() -> None:
    from nndoctor.reports.terminal import reset_terminal

    if not reset_terminal():
        raise UsageError("there is no terminal here to reset: neither stderr nor stdout is one")
    tell("The terminal scrolls over its full height again.")


def _is_ascii() -> bool:
    return not (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")


def _write_report(folder: Path) -> Path:
    from nndoctor.reporting import report_run

    return report_run(folder, folder / "report.html")


def _accept(folder: Path, rule: str, reason: str) -> None:
    from nndoctor.acknowledged import acknowledge

    acknowledge(folder, [rule], reason)


def _docs_of(rule: str) -> RuleDocs | None:
    from nndoctor.cli.explain import pages_about

    return next((page.docs for page in pages_about(rule) if page.id == rule), None)
