"""Judging and reporting a recorded run: the same engine over the same frames, without torch.

Used by ``Doctor.report``, ``nndoctor report`` and ``nndoctor diagnose``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nndoctor.acknowledged import read_acknowledged
from nndoctor.findings import Diagnosis, Finding, ProbeFailure
from nndoctor.packaged import full_catalogue
from nndoctor.record import RecordReader
from nndoctor.record_thinning import FACT, sentence
from nndoctor.reports import write_report
from nndoctor.reports.view import BeforeAfter, RunView, build_view, lab_results
from nndoctor.reports.windows import raw_windows
from nndoctor.rules import Judge, Ruleset, load_rulesets
from nndoctor.rules.ruleset import Silence

PROBE_FAILURE = "probe-failure"
"""Kind of the record's events that name a dismissed probe."""


@dataclass(frozen=True)
class JudgedRun:
    """A recorded run, judged: its history and diagnosis, and the rules it was judged by."""

    judge: Judge
    ruleset: Ruleset
    diagnosis: Diagnosis


def judge_record(reader: RecordReader, rules: Sequence[str | Path] | None = None) -> JudgedRun:
    """Judge every frame of a record.

    Args:
        reader: the record; may still be written.
        rules: rulesets to judge by; default those that the run was recorded with.

    Raises:
        RulesetError: a ruleset is missing or has mistakes.
    """
    catalogue = full_catalogue(reader.published)
    ruleset = load_rulesets(tuple(rules) if rules else reader.facts.rules or ("core",), catalogue)
    ruleset = silenced(ruleset, reader.folder)
    judge = Judge(ruleset, reader.targets, catalogue)
    for frame in reader.frames(catalogue=catalogue):
        judge.feed(frame)
    failures = tuple(
        ProbeFailure(event.text.partition(": ")[0], event.step, event.text.partition(": ")[2])
        for event in reader.events()
        if event.kind == PROBE_FAILURE
    )
    facts = dict(reader.facts.facts)
    if isinstance(facts.get(FACT), Mapping):
        facts["unseen"] = [*facts.get("unseen", ()), sentence(facts[FACT])]
    diagnosis = judge.diagnosis(facts, failures)
    if isinstance(facts.get(FACT), Mapping) and not rules:
        diagnosis = replace(diagnosis, findings=(*diagnosis.findings, *_lost(reader.findings(), diagnosis.findings)))
    return JudgedRun(judge, ruleset, diagnosis)


def _lost(recorded: Sequence[Finding], found: Sequence[Finding]) -> tuple[Finding, ...]:
    """What the run itself found on frames that its record no longer has."""
    rules = {finding.rule for finding in found}
    return tuple(finding for finding in recorded if finding.rule not in rules)


def silenced(ruleset: Ruleset, folder: Path) -> Ruleset:
    """The ruleset with what is acknowledged in the run `folder` silenced, as an override would."""
    extra: dict[str, tuple[Silence, ...]] = {}
    for item in read_acknowledged(folder):
        extra[item.rule] = (*extra.get(item.rule, ()), Silence(item.layers, None, item.reason))
    if not extra:
        return ruleset
    rules = tuple(replace(rule, silences=(*rule.silences, *extra.get(rule.id, ()))) for rule in ruleset.rules)
    return replace(ruleset, rules=rules)


def view_run(
    folder: Path, rules: Sequence[str | Path] | None = None, before_after: BeforeAfter | None = None
) -> RunView:
    """Everything a report of the run in `folder` needs.

    Raises:
        RecordError: there is no readable record in `folder`.
        RulesetError: a ruleset is missing or has mistakes.
    """
    reader = RecordReader(folder)
    try:
        judged = judge_record(reader, rules)
        history = judged.judge.history
        windows = raw_windows(reader.frames(), judged.diagnosis, history)
        return build_view(reader, judged.diagnosis, history, judged.ruleset.docs(), before_after, lab_results(folder), windows)
    finally:
        reader.close()


def report_run(
    folder: Path,
    path: Path,
    *,
    rules: Sequence[str | Path] | None = None,
    format: str | None = None,
    before_after: BeforeAfter | None = None,
) -> Path:
    """Write the report of a recorded run and return its path.

    Args:
        folder: the run folder.
        path: where to write; its suffix chooses the format where `format` is None.
        rules: rulesets to judge by; default those that the run was recorded with.
        before_after: the run repeated with a remedy, for the section that compares both.
    """
    return write_report(view_run(folder, rules, before_after), path, format)
