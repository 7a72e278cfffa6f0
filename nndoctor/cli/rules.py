"""``nndoctor rules``: what rules there are, what they say, whether a file of one's own is right, and whether it works."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nndoctor.cli.complete import complete_rule, complete_ruleset
from nndoctor.cli.explain import called
from nndoctor.cli.output import SEVERITY_STYLE, UsageError, columns, count, plain, say, say_json, say_lines
from nndoctor.cli.pages import pages_of
from nndoctor.cli.rules_judge import backtest, files_of, lint, loaded
from nndoctor.cli.rules_new import new
from nndoctor.cli.rules_try import try_expression
from nndoctor.cli.settings import setting

if TYPE_CHECKING:
    from rich.text import Text

    from nndoctor.rules import Rule, Ruleset

app = typer.Typer(help="List, show, check, test and write rules.", no_args_is_help=True, rich_markup_mode=None)
app.command("new")(new)
app.command("lint")(lint)
app.command("backtest")(backtest)
app.command("try")(try_expression)

RulesetArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RULESET]...",
        help="core, a file, a folder or package:name.  [default: the setting rules]",
        autocompletion=complete_ruleset,
    ),
]
RulesetOption = Annotated[
    list[str] | None, typer.Option("--rules", metavar="RULESET", help="Where to look.  [default: the setting rules]")
]


@app.callback()
def _rules() -> None:
    """List, show, check, test and write rules."""


@app.command("list")
def list_rules(
    rulesets: RulesetArguments = None, json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False
) -> None:
    """List every rule: its name, how bad it is, its diagnosis."""
    ruleset = _load(rulesets)
    if json:
        say_json([_summary(rule) for rule in ruleset.rules])
        return
    rows: list[Sequence[str | Text]] = [("rule", "severity", "scope", "diagnosis", "title")]
    for rule in ruleset.rules:
        severity = plain("off" if rule.disabled else rule.severity.label, SEVERITY_STYLE[rule.severity.label])
        diagnosis = "" if rule.diagnosis == rule.id else rule.diagnosis
        rows.append((rule.id, severity, rule.scope, diagnosis, rule.title))
    say_lines(columns(rows))
    say()
    diagnoses = len({rule.diagnosis for rule in ruleset.rules})
    say(f"{count(len(ruleset.rules), 'rule')} for {diagnoses} diagnoses (nndoctor explain RULE).")


@app.command("show")
def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="A rule's id, or the name of a diagnosis.", autocompletion=complete_rule)],
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Every value in force, defaults and overrides included, with its origin.")
    ] = False,
    rules: RulesetOption = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON, every value in force with its origin.")] = False,
) -> None:
    """Show a rule as written, or with --resolved as it is in force."""
    names = tuple(rules or setting("rules"))
    found = _called(id, _load(list(names)), names)
    if json:
        say_json({rule.id: {name: {"value": value, "origin": origin} for name, origin, value in _fields(rule)} for rule in found})
        return
    for index, rule in enumerate(found):
        if index:
            say()
        if resolved:
            say_lines(columns([("field", "from", "value"), *_fields(rule)]))
        else:
            say("\n".join(_written(rule)))
    say()
    say(f"{', '.join(rule.id for rule in found)}: {', '.join(rule.source for rule in found)}")


@app.command("check")
def check(rulesets: RulesetArguments = None, json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Check rulesets: every mistake with its place and what to do.

    Exits with 2 if there is one. A file of a folder ruleset is read together with the rest of it. Links may name rules of the built-in rulesets.
    """
    if json:
        _check_as_json(rulesets)
        return
    ruleset = _load(rulesets)
    overridden = len({rule.id for rule in ruleset.rules if _places(rule) - {rule.source.rpartition(":")[0]}})
    changed = f" ({overridden} changed by another file)" if overridden else ""
    say(
        f"No mistakes in {', '.join(ruleset.sources)}: {count(len(ruleset.rules), 'rule')}{changed}, {count(len(ruleset.explain), 'explanation')}, {count(len(ruleset.tests), 'test')}."
    )


def _check_as_json(rulesets: list[str] | None) -> None:
    from dataclasses import asdict

    from nndoctor.rules import RulesetError

    try:
        ruleset = _load(rulesets)
    except RulesetError as error:
        say_json({"problems": [asdict(problem) for problem in error.problems]})
        raise typer.Exit(2) from error
    counts = {"rules": len(ruleset.rules), "explanations": len(ruleset.explain), "tests": len(ruleset.tests)}
    say_json({"problems": [], "sources": list(ruleset.sources), **counts})


@app.command("test")
def run_rule_tests(
    rulesets: RulesetArguments = None, json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False
) -> None:
    """Run the tests that the files hold, without a model.

    Exits with 1 if one fails.
    """
    from nndoctor.rules import run_tests

    names = tuple(rulesets or setting("rules"))
    results = run_tests(_with_own_tests(_load(list(names)), names))
    failed = sum(not result.passed for result in results)
    if json:
        say_json(
            [{"name": r.name, "source": r.source, "passed": r.passed, "failures": list(r.failures)} for r in results]
        )
    else:
        for result in results:
            say(result.render())
        if results:
            say()
        outcome = f"{failed} failed" if failed else "all passed" if results else "nothing to run"
        say(f"{count(len(results), 'test')} in {', '.join(names)}: {outcome}.")
    raise typer.Exit(1 if failed else 0)


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of ruleset files, for the editor.

    Save it as FILE, and begin a ruleset with `# yaml-language-server: $schema=FILE`.
    """
    from nndoctor.packaged import full_catalogue
    from nndoctor.rules.schema import json_schema

    say_json(json_schema(full_catalogue()))


def _called(id: str, ruleset: Ruleset, names: Sequence[str]) -> list[Rule]:
    """The rules that `explain` would show for `id`. Raises UsageError where there is none."""
    wanted = {page.id for page in called(id, pages_of(names))}
    return [rule for rule in ruleset.rules if rule.id in wanted]


def _load(names: Sequence[str] | None) -> Ruleset:
    return loaded(tuple(names or setting("rules")))


def _with_own_tests(ruleset: Ruleset, names: Sequence[str]) -> Ruleset:
    """Without the tests of files that the named ones only extend: those are for their own authors to run."""
    from dataclasses import replace

    files = {file.resolve() for file in files_of(names)}
    return replace(ruleset, tests=tuple(test for test in ruleset.tests if _file(test.source) in files))


def _file(source: str) -> Path:
    """The file of a ``file:line``, which is told relative to the current folder or to that of the built-in rules."""
    from nndoctor.rules import rulesets_folder

    path = Path(source.rpartition(":")[0])
    return (path if path.exists() else rulesets_folder().parent / path).resolve()


def _written(rule: Rule) -> Iterator[str]:
    """The lines of the rule in its file: from its dash to the next line that is indented as little."""
    try:
        lines = _file(rule.source).read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UsageError(f"{rule.source}: the file of rule {rule.id!r} cannot be read: {error.strerror}") from error
    first = int(rule.source.rpartition(":")[2]) - 1
    indent = len(lines[first]) - len(lines[first].lstrip())
    yield lines[first]
    block = []
    for line in lines[first + 1 :]:
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            break
        block.append(line)
    yield from "\n".join(block).rstrip().split("\n")


def _fields(rule: Rule) -> Iterator[tuple[str, str, str]]:
    """Every field of a rule: name, the place that gave it its value, and the value."""
    values: dict[str, object] = {
        "id": rule.id,
        "title": rule.title,
        "diagnosis": rule.diagnosis,
        "category": rule.category,
        "severity": rule.severity.label,
        "confidence": rule.confidence,
        "stability": rule.stability,
        "scope": rule.scope,
        "params": ", ".join(f"{name} = {value:g}" for name, value in rule.params.items()),
        "when": rule.texts.get("when", ""),
        "clear_when": rule.texts.get("clear_when", ""),
        "where": rule.texts.get("where", ""),
        "for": rule.hold,
        "keep": rule.keep,
        "warmup": rule.warmup,
        "every": rule.every,
        "on_missing": rule.on_missing,
        "action": "" if rule.action == "none" else rule.action,
        "evidence": ", ".join(name for name, _ in rule.evidence),
        "message": rule.texts.get("message", ""),
        "fixes": "; ".join(rule.docs.fixes),
        "not at": ", ".join(rule.excluded),
        "switched off": rule.disabled or "",
    }
    for name, value in values.items():
        if str(value):
            given = rule.source if name == "id" else rule.origins.get(name, "default")
            yield name, given, str(value)
    for silence in rule.silences:
        yield "silenced", "override", f"{', '.join(silence.layers) or 'everywhere'}: {silence.reason}"


def _places(rule: Rule) -> set[str]:
    """The files that gave the rule its values, but for what a whole ruleset sets by its defaults."""
    shared = {"every", "on_missing", "warmup", "for", "keep"}
    return {origin.rpartition(":")[0] for name, origin in rule.origins.items() if name not in shared}


def _summary(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "title": rule.title,
        "diagnosis": rule.diagnosis,
        "category": rule.category,
        "severity": rule.severity.label,
        "confidence": rule.confidence,
        "scope": rule.scope,
        "stability": rule.stability,
        "enabled": rule.disabled is None,
        "signals": list(rule.signals()),
        "source": rule.source,
    }
