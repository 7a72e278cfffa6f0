"""``nndoctor ack``: accept a finding of a run, with the reason; it stays in the report and no longer counts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from nndoctor.cli.complete import complete_rule, complete_run
from nndoctor.cli.diagnose import judged
from nndoctor.cli.output import UsageError, columns, count, say, say_json, say_lines, tell
from nndoctor.cli.settings import run_root


def ack(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or any part of its name.", autocompletion=complete_run)],
    id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="A rule's id, or the name of a diagnosis.  [default: list what is acknowledged]", autocompletion=complete_rule)
    ] = None,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why it is fine; required.")] = None,
    layers: Annotated[list[str] | None, typer.Option("--layers", metavar="GLOB", help="Only at these layers; may be repeated.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the acknowledgement back.")] = False,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Accept a finding of a run.

    It stays in every report, marked with the reason, and no longer counts for verdicts and exit codes. It holds for this run; for all
    runs write an override into a ruleset of your own (nndoctor explain ID shows the line).
    """
    from nndoctor.acknowledged import acknowledge, read_acknowledged, write_acknowledged
    from nndoctor.record import find_run

    folder = find_run(run, run_root())
    if id is None:
        _list(folder, json)
        return
    if remove:
        before = read_acknowledged(folder)
        kept = [item for item in before if item.rule not in _rules(folder, id)]
        if len(kept) == len(before):
            raise UsageError(f"{id!r} is not acknowledged in {folder.name}; nndoctor ack {folder.name} lists what is")
        write_acknowledged(folder, kept)
        verdict = f"{id} counts again in {folder.name}."
    else:
        if reason is None or len(reason.strip()) < 3:
            raise UsageError("--reason: say why it is fine, for those who read the report later")
        rules = _rules(folder, id)
        acknowledge(folder, rules, reason.strip(), layers or ())
        _tell_what_is_left(folder, rules)
        verdict = f"Acknowledged {', '.join(rules)} in {folder.name}: {reason.strip()}"
    say_json({"run": folder.name, "acknowledged": _plain(folder)}) if json else say(verdict)


def _rules(folder: Path, id: str) -> list[str]:
    """The rules of the run's findings that `id` means. Raises UsageError where there is none."""
    findings = judged(str(folder), None, run_root())[1].diagnosis.findings
    rules = list(dict.fromkeys(f.rule for f in findings if id in (f.rule, f.diagnosis)))
    if not rules:
        found = ", ".join(dict.fromkeys(f.rule for f in findings)) or "no findings"
        raise UsageError(f"{folder.name} has no finding {id!r}; it has {found}")
    return rules


def _tell_what_is_left(folder: Path, rules: list[str]) -> None:
    """Where the layers that were given leave a part of a finding uncovered."""
    for finding in judged(str(folder), None, run_root())[1].diagnosis.findings:
        if finding.rule in rules and finding.suppressed is None:
            tell(f"warning: {finding.rule} still counts: not all of its {count(len(finding.targets), 'place')} match --layers")


def _list(folder: Path, json: bool) -> None:
    from nndoctor.acknowledged import read_acknowledged

    if json:
        say_json({"run": folder.name, "acknowledged": _plain(folder)})
        return
    found = read_acknowledged(folder)
    if found:
        rows = [(a.rule, ", ".join(a.layers) or "everywhere", time.strftime("%Y-%m-%d", time.localtime(a.at)), a.reason) for a in found]
        say_lines(columns([("rule", "where", "since", "reason"), *rows]))
        say()
    say(f"{count(len(found), 'finding')} acknowledged in {folder.name}.")


def _plain(folder: Path) -> list[dict[str, Any]]:
    from nndoctor.acknowledged import read_acknowledged

    return [{"rule": a.rule, "layers": list(a.layers), "reason": a.reason, "at": a.at} for a in read_acknowledged(folder)]
