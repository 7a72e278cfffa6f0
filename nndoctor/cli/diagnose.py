"""``nndoctor diagnose``: judge a recorded run again, by the rules it was recorded with or by others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nndoctor.cli.complete import complete_ruleset, complete_run
from nndoctor.cli.output import UsageError, say, say_json, say_raw, tell, tell_progress
from nndoctor.cli.settings import FAIL_ON_CHOICES, NEVER, load_settings

if TYPE_CHECKING:
    from nndoctor.findings import Diagnosis
    from nndoctor.reports.view import RunView

RunArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN", help="A run folder, or any part of its name.  [default: the newest run]", autocompletion=complete_run
    ),
]
RulesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--rules",
        metavar="RULESET",
        autocompletion=complete_ruleset,
        help="core, a file or package:name; may be repeated.  [default: the rules of the run]",
    ),
]


def diagnose(
    run: RunArgument = None,
    rules: RulesOption = None,
    format: Annotated[
        Literal["text", "json", "md", "sarif", "junit", "github"],
        typer.Option(help="How to answer: for people, programs, issues, code hosts, continuous integration, GitHub Actions."),
    ] = "text",
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    fail_on: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(FAIL_ON_CHOICES), help="Exit with 1 from this severity on.  [default: the setting fail_on]"
        ),
    ] = None,
) -> None:
    """Judge a recorded run again, with the same rules or others.

    The same rules give the same findings as live. The run may still be running, or have been killed.
    """
    settings = load_settings()
    limit = settings["fail_on"].value if fail_on is None else fail_on
    if limit not in FAIL_ON_CHOICES:
        raise UsageError(f"--fail-on: expected one of {', '.join(FAIL_ON_CHOICES)}, got {limit!r}")
    folder, view = judged(run, rules, Path(settings["run_root"].value))
    if json or format == "json":
        say_json(as_dict(folder, view))
    elif format != "text":
        from nndoctor.reports import render_report

        say_raw(render_report(view, format))
    else:
        from nndoctor.reports.text import render

        say(render(view).rstrip("\n"))
    raise typer.Exit(exit_code(view.diagnosis, limit))


def judged(run: str | None, rules: list[str] | None, root: Path) -> tuple[Path, RunView]:
    """The folder of the run that the user means, and the run judged.

    Raises:
        RecordError, RulesetError: there is no such run, or a ruleset has mistakes.
    """
    from nndoctor.record import find_run
    from nndoctor.reporting import view_run

    folder = find_run(run, root)
    tell_progress(f"judging {folder}")
    view = view_run(folder, rules or None)
    for problem in view.problems:
        tell(f"warning: {folder}: {problem}")
    return folder, view


def exit_code(diagnosis: Diagnosis, limit: str) -> int:
    """1 if a finding that is not silenced is as bad as `limit`, 0 otherwise."""
    from nndoctor.findings import Severity

    if limit == NEVER or diagnosis.worst is None:
        return 0
    return int(diagnosis.worst >= Severity.parse(limit))


def as_dict(folder: Path, view: RunView) -> dict[str, Any]:
    """The diagnosis for a program: ``steps`` is the last step recorded."""
    from nndoctor.findings import taken_for

    return {
        "run": folder.name,
        "name": view.name,
        "status": view.status,
        "taken_for": list(taken_for(view.facts)),
        **view.diagnosis.to_dict(),
        "problems": list(view.problems),
    }
