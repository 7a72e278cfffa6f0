"""``nndoctor rules lint`` and ``backtest``: whether rules are good, and how they would have done on the runs of yesterday."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nndoctor.cli.complete import complete_ruleset, complete_run
from nndoctor.cli.output import (
    SEVERITY_STYLE,
    UsageError,
    columns,
    count,
    plain,
    say,
    say_json,
    say_lines,
    tell,
    tell_progress,
)
from nndoctor.cli.settings import run_root, setting

if TYPE_CHECKING:
    from rich.text import Text

    from nndoctor.rules import Ruleset
    from nndoctor.rules.backtest import RunResult

NO_RUNS = "no recorded runs in {}: train with nndoctor.wrap(...) or `nndoctor run -- train.py` first"


def lint(
    rulesets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RULESET]...", help="A file, a folder, core or package:name.  [default: the setting rules]", autocompletion=complete_ruleset),
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option("--ignore", metavar="CODE", help="A remark not to make; may be repeated.")] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what is right but not good yet: docs, tests, reasons.

    Exits with 1 if there is any.
    """
    from nndoctor.rules.lint import CODES
    from nndoctor.rules.lint import lint as remarks_on

    names = tuple(rulesets or setting("rules"))
    unknown = [code for code in ignore or () if code not in CODES]
    if unknown:
        raise UsageError(f"--ignore: there is no remark {unknown[0]!r}; there are {', '.join(CODES)}")
    ruleset = loaded(names)
    files = files_of(names)
    remarks = [remark for remark in remarks_on(ruleset, files) if remark.code not in (ignore or ())]
    if json:
        say_json([{"code": r.code, "source": r.source, "rule": r.rule, "message": r.message, "reason": CODES[r.code]} for r in remarks])
    else:
        for remark in remarks:
            say(f"{remark.source}: {remark.code}: {remark.rule + ': ' if remark.rule else ''}{remark.message}")
        seen = list(dict.fromkeys(remark.code for remark in remarks))
        if seen:
            say()
            for code in seen:
                say(f"{code}: {CODES[code]}")
            say()
        say(f"{count(len(remarks), 'remark')} on {', '.join(names)}." if remarks else f"Nothing to remark on {', '.join(names)}.")
    raise typer.Exit(1 if remarks else 0)


def backtest(
    ruleset: Annotated[
        str, typer.Argument(metavar="RULESET", help="The rules to try: a file, a folder, core or package:name.", autocompletion=complete_ruleset)
    ],
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Run folders, or parts of their names.  [default: all recorded runs]", autocompletion=complete_run),
    ] = None,
    healthy: Annotated[
        list[str] | None,
        typer.Option("--healthy", metavar="PATTERN", help="Runs known to be healthy, by name (* allowed): whatever fires there above info is a false alarm. May be repeated."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Judge recorded runs by rules: who fires when, false alarms.

    Also how long before the loss broke; exits with 1 on a false alarm. The rules of core judge along, so that it is known what would explain a finding; only RULESET's own are listed.
    """
    from nndoctor.rules.loading import ruleset_around

    folders = _folders(runs)
    own = loaded((ruleset,))
    files = {str(file.resolve()) for file in files_of((ruleset,))}
    ids = frozenset(rule.id for rule in own.rules if str(_file(rule.source)) in files and rule.disabled is None)
    if not ids:
        raise UsageError(f"{ruleset} holds no rule of its own that is switched on")
    together = loaded(tuple(dict.fromkeys(("core", ruleset_around(ruleset, Path.cwd())))))
    results = []
    for folder in folders:
        tell_progress(f"judging {folder}")
        results.append(_backtested(folder, together, ids, tuple(healthy or ())))
    if json:
        say_json({"rules": sorted(ids), "runs": [_as_dict(result) for result in results]})
    else:
        _show(results)
        say(_verdict(results, ids))
    raise typer.Exit(1 if any(result.false_alarms for result in results) else 0)


def loaded(names: Sequence[str]) -> Ruleset:
    """The rulesets, files inside of a folder ruleset together with the rest of it; with the signals of packages."""
    from nndoctor.packaged import full_catalogue
    from nndoctor.rules import load_rulesets
    from nndoctor.rules.loading import ruleset_around

    return load_rulesets(tuple(dict.fromkeys(ruleset_around(name, Path.cwd()) for name in names)), full_catalogue())


def files_of(names: Sequence[str]) -> list[Path]:
    """The YAML files that the names stand for, without what they extend."""
    from nndoctor.rules.loading import files_in, find_source

    return [file for name in names for file in files_in(find_source(name, Path.cwd()))]


def _file(source: str) -> Path:
    from nndoctor.rules import rulesets_folder

    path = Path(source.rpartition(":")[0])
    return (path if path.exists() else rulesets_folder().parent / path).resolve()


def _folders(runs: list[str] | None) -> list[Path]:
    from nndoctor.record import find_run, list_runs

    root = run_root()
    if runs:
        return [find_run(run, root) for run in runs]
    found = [run.folder for run in list_runs(root) if run.problem is None]
    if not found:
        raise UsageError(NO_RUNS.format(root))
    return found[::-1]


def _backtested(folder: Path, ruleset: Ruleset, ids: frozenset[str], healthy: Sequence[str]) -> RunResult:
    from nndoctor.record import RecordReader
    from nndoctor.rules.backtest import backtest as judged

    with RecordReader(folder) as reader:
        name = reader.facts.name
        well = any(fnmatchcase(known, pattern) for known in (folder.name, name) for pattern in healthy)
        result = judged(ruleset, folder.name, reader.frames(catalogue=ruleset.catalogue), reader.targets, healthy=well, rules=ids)
        for problem in reader.problems:
            tell(f"warning: {folder}: {problem}")
    return result


def _show(results: Sequence[RunResult]) -> None:
    rows: list[Sequence[str | Text]] = [("run", "rule", "fired at", "at", "loss broke", "lead", "")]
    for result in results:
        rows += list(_rows(result))
    say_lines(columns(rows))
    say()


def _rows(result: RunResult) -> Iterator[Sequence[str | Text]]:
    broke = "-" if result.broke is None else str(result.broke)
    if not result.fired:
        yield result.run, plain("nothing fired"), "", "", broke, "", _remark(result)
    for fired in result.fired:
        lead = result.lead(fired)
        false = fired in result.false_alarms
        note = "FALSE ALARM" if false else f"explained by {fired.explained_by}" if fired.explained_by else ""
        yield (
            result.run, plain(fired.rule, SEVERITY_STYLE[fired.severity.label]), str(fired.step), count(fired.targets, "place"), broke,
            "-" if lead is None else f"{lead:+d}", plain(note, "bold red" if false else ""),
        )  # fmt: skip


def _remark(result: RunResult) -> str:
    return f"not examined: {', '.join(result.unexamined[:3])}" if result.unexamined else "healthy" if result.healthy else ""


def _verdict(results: Sequence[RunResult], ids: frozenset[str]) -> str:
    fired = sum(bool(result.fired) for result in results)
    healthy = [result for result in results if result.healthy]
    alarms = sum(bool(result.false_alarms) for result in healthy)
    known = f"false alarms in {alarms} of {count(len(healthy), 'healthy run')}" if healthy else "no run was named healthy (--healthy)"
    return f"{count(len(ids), 'rule')} over {count(len(results), 'run')}: fired in {fired}; {known}."


def _as_dict(result: RunResult) -> dict[str, Any]:
    return {
        "run": result.run,
        "steps": result.steps,
        "healthy": result.healthy,
        "loss_broke": result.broke,
        "fired": [
            {
                "rule": f.rule, "severity": f.severity.label, "step": f.step, "places": f.targets, "lead": result.lead(f),
                "explained_by": f.explained_by, "false_alarm": f in result.false_alarms,
            }
            for f in result.fired
        ],
        "not_examined": list(result.unexamined),
    }  # fmt: skip
