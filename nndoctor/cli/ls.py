"""``nndoctor ls``: the recorded runs, newest first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nndoctor.cli.output import SEVERITY_STYLE, UsageError, columns, count, plain, say, say_json, say_lines
from nndoctor.cli.settings import run_root

if TYPE_CHECKING:
    from rich.text import Text

    from nndoctor.record import RunSummary

STATUS_STYLE = {"running": "green", "crashed": "red", "killed": "red"}


def ls(
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    root: Annotated[Path | None, typer.Option(help="Folder of the runs.  [default: the setting run_root]")] = None,
) -> None:
    """List the recorded runs, newest first."""
    from nndoctor.record import list_runs

    folder = run_root() if root is None else root
    if folder.is_file():
        raise UsageError(f"{folder} is a file; expected the folder that runs are recorded in, such as .nndoctor/runs")
    runs = list_runs(folder)
    if json:
        say_json({"root": str(folder), "runs": [_as_dict(run) for run in runs]})
        return
    if runs:
        now = time.time()
        lines = columns(
            [("run", "status", "steps", "started", "worst finding"), *(_row(run, now) for run in runs)]
        )
        say_lines(lines)
        say()
    say(_verdict(runs, folder))


def _row(run: RunSummary, now: float) -> Sequence[str | Text]:
    if run.problem is not None:
        return (run.folder.name, plain("unreadable", "red"), "", "", run.problem)
    worst = _worst(run)
    finding = (
        plain("none")
        if worst is None
        else plain(f"{worst.severity.label}: {worst.diagnosis}", SEVERITY_STYLE[worst.severity.label])
    )
    status = run.status or ""
    steps = f"{run.last_step:,}".replace(",", " ")
    return (run.folder.name, plain(status, STATUS_STYLE.get(status, "")), steps, ago(now - run.started), finding)


def _worst(run: RunSummary) -> Any:
    """The finding to name: a root cause before what it explains, the worst first."""
    speaking = [finding for finding in run.findings if finding.suppressed is None]
    return max(speaking, key=lambda f: (f.severity, f.explained_by is None), default=None)


def _verdict(runs: Sequence[RunSummary], folder: Path) -> str:
    if not runs:
        return f"No runs in {folder}: train with nndoctor.wrap(...) or `nndoctor run -- train.py`."
    states = [run.status or "unreadable" for run in runs]
    told = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{count(len(runs), 'run')} in {folder}: {told}."


def _as_dict(run: RunSummary) -> dict[str, Any]:
    return {
        "name": run.name,
        "folder": str(run.folder),
        "status": run.status,
        "started": run.started,
        "steps": run.last_step,
        "worst": None if run.worst is None else run.worst.label,
        "findings": [
            {"rule": f.rule, "diagnosis": f.diagnosis, "severity": f.severity.label, "explained_by": f.explained_by}
            for f in run.findings
        ],
        "problem": run.problem,
    }


def ago(seconds: float) -> str:
    """``5 s ago``, ``3 min ago``, ``2 h ago``, ``4 days ago``."""
    for limit, size, unit in ((90, 1, "s"), (5400, 60, "min"), (129600, 3600, "h")):
        if seconds < limit:
            return f"{max(0, round(seconds / size))} {unit} ago"
    return f"{round(seconds / 86400)} days ago"
