"""A page per diagnosis: what it is, how to see it, how often it was named rightly, and each rule that decides it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from make_catalogue import Entry, figure

from nndoctor.rules import Rule
from nndoctor.zoo.case import Case

from .knowledge import REPOSITORY, Knowledge
from .text import bullets, folded, page, prose, reference, section, table

KINDS = {
    "contract": "a broken promise of the loop, decided without thresholds",
    "statistic": "a statistic together with an outcome",
    "symptom": "a symptom, which normally has a deeper cause",
    "advice": "advice",
}
SEEDS = 3
PUBLISHED = "report of the same mistake"


def diagnosis_pages(known: Knowledge) -> Iterator[tuple[str, str]]:
    for name, entry in known.entries.items():
        yield f"diagnoses/{name}.md", page(f"`{name}`", diagnosis(entry, known), entry.what)


def diagnosis(entry: Entry, known: Knowledge) -> Iterator[str]:
    rules = known.rules_of(entry.name)
    yield f"**{prose(entry.what)}**"
    if entry.kind == "symptom":
        yield "*A symptom: where its cause is found too, the report shows it folded under that cause.*"
    if entry.kind == "advice":
        yield "*Advice: never above `info`.*"
    if not rules:
        yield without_rules(entry)
    yield from section("In the clinic", record(entry.name, known))
    yield from section("See it", cases(known.cases_of(entry.name), known))
    if rules:
        yield "## " + ("The rule" if len(rules) == 1 else f"The {len(rules)} rules")
    for rule in rules:
        yield from rule_parts(rule, known)


def without_rules(entry: Entry) -> str:
    if entry.same_as:
        return f"It is diagnosed under the name of [`{entry.same_as}`]({entry.same_as}.md)."
    reason = f"Not covered: {prose(entry.not_covered)}" if entry.not_covered else "No rule decides it yet."
    return f"!!! warning \"No rule of core names it\"\n\n    {reason}"


def record(name: str, known: Knowledge) -> str:
    """The row of the diagnosis in the clinic; empty where no run has it planted and none named it."""
    row = known.clinic.diagnoses.get(name)
    if row is None or not (row.all.planted or row.all.wrong):
        return ""
    facts = [
        ("named where it was planted (recall)", figure(row.all.recall, row.all.right, row.all.planted)),
        ("the same, on cases that no rule was tuned on", figure(row.untuned.recall, row.untuned.right, row.untuned.planted)),
        ("planted where it was named (precision)", figure(row.all.precision, row.all.right, row.all.right + row.all.wrong)),
        ("named as the first root cause", f"{row.first or 0} of {row.all.planted} runs"),
        ("steps from onset to diagnosis", f"{row.steps[0]} in the median, {row.steps[1]} at most" if row.steps else "–"),
        ("cured by the doctor's own remedy", f"{row.remedied} of {row.treated} runs it was tried on" if row.treated else "–"),
    ]
    note = f"Over {known.clinic.seeds} seeds of {known.clinic.sick} sick and {known.clinic.healthy} healthy cases; [the clinic](../clinic.md) says how they are counted."
    return table(("", ""), facts) + "\n\n" + note


def cases(found: Sequence[Case], known: Knowledge) -> str:
    """The cases of the zoo that show it: what is planted, and what the doctor made of it."""
    if not found:
        return ""
    commands = "\n".join(f"$ nndoctor demo {case.name}" for case in found)
    rows = [(f"`{case.name}`", planted(case), *outcome(known.runs.get(case.name, ()))) for case in found]
    said = "Each trains the sick network under the doctor, then again with the doctor's own remedy, and shows both in one report."
    return f"{said}\n\n```console\n{commands}\n```\n\n" + table(("case", "what is planted", "named first", "score: sick → treated"), rows)


def planted(case: Case) -> str:
    source = f" ([{PUBLISHED}]({case.source}))" if case.source else ""
    return prose(case.description) + source


def outcome(runs: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    sick = [run for run in runs if run["variant"] == "sick"]
    treated = {run["seed"]: run for run in runs if run["variant"] == "treated"}
    first = f"{sum(run.get('rank') == 1 for run in sick)} of {len(sick)}" if sick else "–"
    pairs = [(run.get("score"), treated[run["seed"]].get("score")) for run in sick if run["seed"] in treated]
    known = [pair for pair in pairs if None not in pair]
    return first, f"{number(known[0][0])} → {number(known[0][1])}" if known else "–"


def number(score: float | str) -> str:
    """A score of the clinic; one that is not finite is written out there."""
    return f"{score:.3g}" if isinstance(score, (int, float)) else score


def rule_parts(rule: Rule, known: Knowledge) -> Iterator[str]:
    docs = rule.docs
    yield f"### `{rule.id}`"
    yield facts(rule, known.origin[rule.id])
    yield from section("What it checks", prose(docs.checks), 4)
    yield from section("Why it matters", prose(docs.why), 4)
    yield from section("Typical causes, likeliest first", bullets(map(prose, docs.causes)), 4)
    yield from section("How to confirm", prose(docs.confirm), 4)
    yield from section("What to do", "\n\n".join(filter(None, (bullets(map(prose, docs.fixes)), remedies(rule)))), 4)
    yield from section("Known problems", bullets(map(prose, docs.known_problems)), 4)
    yield from section("Signals it reads", bullets(signal_line(name, known) for name in rule.signals()), 4)
    yield from section("Causes and symptoms", relatives(rule, known), 4)
    yield from section("References", bullets(map(reference, docs.references)), 4)
    options = ", ".join(f"`{name}` = {value:g}" for name, value in rule.params.items())
    silence = f'To silence it, in a ruleset of your own:\n\n```yaml\noverrides:\n  - {{rules: [{rule.id}], suppress: true, reason: "..."}}\n```'
    yield from folded("The rule itself, its options, and how to silence it", "\n\n".join(filter(None, (
        f"```yaml\n{written(rule)}\n```", f"Options, to be changed by an override: {options}." if options else "", silence,
    ))))  # fmt: skip


def facts(rule: Rule, origin: str) -> str:
    place = f"in the ruleset `{origin}`" + ("" if origin == "core" else f" (`rules=[\"{origin}\"]`), not in `core`")
    per = "the run" if rule.scope == "run" else f"each {'parameter' if rule.scope == 'param' else rule.scope}"
    said = [f"*{prose(rule.title)}*", f"**{rule.severity.label}** · {rule.confidence} confidence · judged for {per} · {KINDS[rule.kind]} · {place}"]
    if rule.stability != "stable":
        said[-1] += f" · {rule.stability}"
    return "\n\n".join(said)


def remedies(rule: Rule) -> str:
    """The remedies that are computed: what they set or call, and where."""
    rows = []
    for fix in raw(rule).get("fixes", ()):
        values = [f"`{name}` = `{value}`" for name, value in fix.get("set", {}).items()]
        call = f"`{fix['call']}`" + (f", {fix['place']}" if fix.get("place") else "") if fix.get("call") else ""
        if values or call:
            rows.append((prose(str(fix["title"])), ", ".join([*values, call] if call else values).replace("|", "\\|"), fix.get("safety", "manual")))
    return "The report computes:\n\n" + table(("remedy", "sets or calls", "safety"), rows) if rows else ""


def signal_line(name: str, known: Knowledge) -> str:
    signal = known.signals[name]
    where = f"../signals/{name}.md" if name in known.signals.names() else "../signals/observed.md"
    return f"[`{name}`]({where}): {prose(signal.help)}"


def relatives(rule: Rule, known: Knowledge) -> str:
    by_id = {other.id: other.diagnosis for other in known.rules}
    lists = [
        ("Explains", [name for name in rule.docs.explains if name != rule.id]),
        ("Explained by", [name for name in rule.docs.explained_by if name != rule.id]),
    ]
    return "\n\n".join(
        f"{title}: " + ", ".join(f"[`{name}`]({by_id.get(name, name)}.md)" for name in names) + "." for title, names in lists if names
    )


@functools.cache
def _file(name: str) -> tuple[Mapping[str, Mapping[str, Any]], tuple[str, ...]]:
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    return {str(rule["id"]): rule for rule in yaml.safe_load(text).get("rules", ())}, tuple(text.split("\n"))


def raw(rule: Rule) -> Mapping[str, Any]:
    return _file(rule.source.rpartition(":")[0])[0].get(rule.id, {})


def written(rule: Rule) -> str:
    """The rule as its author wrote it, without the docs, which stand above."""
    file, _, line = rule.source.rpartition(":")
    lines = _file(file)[1]
    first = int(line) - 1
    indent = len(lines[first]) - len(lines[first].lstrip())
    kept, in_docs = [lines[first]], False
    for text in lines[first + 1 :]:
        depth = len(text) - len(text.lstrip())
        if text.strip() and depth <= indent:
            break
        if text.strip() and depth == indent + 2:
            in_docs = text.strip() == "docs:"
        if not in_docs:
            kept.append(text)
    return "\n".join(text[indent:] for text in kept).rstrip()
