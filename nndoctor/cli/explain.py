"""``nndoctor explain``: what a rule checks, why it matters, how to confirm it, what to do, and where it errs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nndoctor.cli.output import UsageError, plain, say, say_json
from nndoctor.cli.settings import setting

if TYPE_CHECKING:
    from nndoctor.findings import RuleDocs
    from nndoctor.rules import Rule, Ruleset

WIDTH = 100


def explain(
    id: Annotated[str, typer.Argument(metavar="ID", help="A rule's id, also an old one, or the name of a diagnosis.")],
    rules: Annotated[
        list[str] | None,
        typer.Option("--rules", metavar="RULESET", help="Where to look.  [default: the setting rules]"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """What a rule checks, why, and what to do.

    Also how to confirm it, and where it errs.
    """
    from nndoctor.rules import load_rulesets
    from nndoctor.rules.clinic import described, shipped_clinic

    names = tuple(rules or setting("rules"))
    ruleset = load_rulesets(names)
    found = rules_called(id, ruleset, names)
    clinic = shipped_clinic()
    records = [described(rule.id, rule.diagnosis, clinic) for rule in found]
    if json:
        from dataclasses import asdict

        say_json([{**asdict(rule.docs), "clinic": record} for rule, record in zip(found, records, strict=True)])
        return
    for index, rule in enumerate(found):
        if index:
            say()
        for line in _page(rule.docs, rule, records[index]):
            say(line)
    say()
    say(_verdict(id, found, ruleset))


def rules_called(id: str, ruleset: Ruleset, sources: Sequence[str]) -> list[Rule]:
    """The rule `id`, or the one that was once called so, or all rules of the diagnosis `id`.

    Raises:
        UsageError: there is none; with the closest names.
    """
    known = list(dict.fromkeys([*(r.id for r in ruleset.rules), *(r.diagnosis for r in ruleset.rules)]))
    wanted = id if id in known else _new_name(id, sources)
    found = [rule for rule in ruleset.rules if rule.id == wanted]
    found = found or [rule for rule in ruleset.rules if rule.diagnosis == wanted]
    if found:
        return found
    close = get_close_matches(id, known, n=3, cutoff=0.6) or [name for name in known if id and id in name][:3]
    hint = f"did you mean {' or '.join(close)}?" if close else "see: nndoctor rules list"
    raise UsageError(f"no rule or diagnosis {id!r}; {hint}")


def _new_name(id: str, sources: Sequence[str]) -> str:
    """The id of the rule that the files of `sources` say was once called `id`; `id` itself if none does."""
    from nndoctor.rules.loading import find_source
    from nndoctor.rules.yaml import read

    for place in (find_source(source, Path.cwd()) for source in sources):
        for file in sorted(place.glob("*.yaml")) if place.is_dir() else [place]:
            root = read(file)[0].root
            for rule in root.value.get("rules", ()) if root is not None else ():
                former = rule.get("renamed_from", ())
                if id in ([former] if isinstance(former, str) else former):
                    return str(rule["id"])
    return id


def _page(docs: RuleDocs, rule: Rule, record: Sequence[str]) -> Iterator[str]:
    yield f"{docs.id}: {docs.title}"
    yield f"{rule.severity.label}, {rule.confidence} confidence, supports the diagnosis {docs.diagnosis}"
    yield from _section("What it checks", docs.checks)
    yield from _section("Why it matters", docs.why)
    yield from _list("Typical causes, likeliest first", docs.causes)
    yield from _section("How to confirm", docs.confirm)
    yield from _list("What to do", docs.fixes)
    yield from _list("Known problems", docs.known_problems)
    yield from _list("In the clinic (docs/clinic.md)", record)
    options = [f"{name} = {value:g}" for name, value in rule.params.items()]
    yield from _list("Options, to be changed by an override", options)
    yield from _section("To silence it, in a ruleset of your own", f'overrides: [{{rules: [{docs.id}], suppress: true, reason: "..."}}]')
    yield from _list("Explains", docs.explains)
    yield from _list("Explained by", docs.explained_by)
    yield from _list("References", docs.references)


def _section(title: str, text: str) -> Iterator[str]:
    if text:
        yield ""
        yield title
        yield from _wrapped(text, "  ", "  ")


def _list(title: str, items: Sequence[str]) -> Iterator[str]:
    if items:
        yield ""
        yield title
        for item in items:
            yield from _wrapped(item, "  - ", "    ")


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        plain(text).plain,
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _verdict(id: str, found: Sequence[Rule], ruleset: Ruleset) -> str:
    first = found[0]
    if len(found) > 1:
        return f"{len(found)} rules support the diagnosis {first.diagnosis}: {', '.join(rule.id for rule in found)}."
    renamed = "" if id in (first.id, first.diagnosis) else f" (called {id} before)"
    kin = [rule.id for rule in ruleset.rules if rule.diagnosis == first.diagnosis and rule is not first]
    also = f"; see also {', '.join(kin)}" if kin else ""
    return f"{first.id}{renamed} is defined in {first.source}{also}."
