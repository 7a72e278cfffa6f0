"""``nndoctor explain``: what a rule checks, why it matters, how to confirm it, what to do, and where it errs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Annotated

import typer

from nndoctor.cli.complete import complete_rule, complete_ruleset
from nndoctor.cli.output import UsageError, plain, say, say_json, say_lines
from nndoctor.cli.pages import Page, pages_of
from nndoctor.cli.settings import run_root, setting

WIDTH = 100


def explain(
    id: Annotated[str, typer.Argument(metavar="ID", help="A rule's id, also an old one, or the name of a diagnosis.", autocompletion=complete_rule)],
    rules: Annotated[
        list[str] | None,
        typer.Option("--rules", metavar="RULESET", help="Where to look.  [default: the setting rules]", autocompletion=complete_ruleset),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """What a rule checks, why, and what to do.

    Also how to confirm it, and where it errs.
    """
    from nndoctor.rules.clinic import described, shipped_clinic

    pages = pages_of(tuple(rules)) if rules else pages_about(id)
    found = called(id, pages)
    clinic = shipped_clinic()
    records = [described(page.id, page.diagnosis, clinic) for page in found]
    if json:
        from dataclasses import asdict

        say_json([{**asdict(page.docs), "clinic": record} for page, record in zip(found, records, strict=True)])
        return
    for index, page in enumerate(found):
        if index:
            say()
        say_lines(_page(page, records[index]))
    say()
    say(_verdict(id, found, pages))


def pages_about(id: str) -> Sequence[Page]:
    """The pages of the rules in force; where none of them is called `id`, those of the newest run if it had one."""
    pages = pages_of(tuple(setting("rules")))
    if any(id in (page.id, page.diagnosis, *page.renamed_from) for page in pages):
        return pages
    from nndoctor.record import RecordError, RecordReader, find_run
    from nndoctor.rules import RulesetError

    try:
        with RecordReader(find_run(None, run_root())) as reader:
            others = pages_of(reader.facts.rules or ("core",))
    except (RecordError, RulesetError, OSError):  # no run, or rules that are no longer there: what is in force is what there is
        return pages
    return others if any(id in (page.id, page.diagnosis) for page in others) else pages


def called(id: str, pages: Sequence[Page]) -> list[Page]:
    """The page of the rule `id`, or of the one that was once called so, or those of the diagnosis `id`.

    Raises:
        UsageError: there is none; with the closest names.
    """
    found = [page for page in pages if page.id == id]
    found = found or [page for page in pages if page.diagnosis == id] or [page for page in pages if id in page.renamed_from]
    if found:
        return found
    known = list(dict.fromkeys([*(page.id for page in pages), *(page.diagnosis for page in pages)]))
    close = get_close_matches(id, known, n=3, cutoff=0.6) or [name for name in known if id and id in name][:3]
    hint = f"did you mean {' or '.join(close)}?" if close else "see: nndoctor rules list"
    raise UsageError(f"no rule or diagnosis {id!r}; {hint} (a rule of your own: --rules FILE)")


def _page(page: Page, record: Sequence[str]) -> Iterator[str]:
    docs = page.docs
    yield f"{docs.id}: {docs.title}"
    yield f"{page.severity}, {page.confidence} confidence, supports the diagnosis {docs.diagnosis}"
    yield from _section("What it checks", docs.checks)
    yield from _section("Why it matters", docs.why)
    yield from _list("Typical causes, likeliest first", docs.causes)
    yield from _section("How to confirm", docs.confirm)
    yield from _list("What to do", docs.fixes)
    yield from _list("Known problems", docs.known_problems)
    yield from _list("In the clinic (docs/clinic.md)", record)
    options = [f"{name} = {value:g}" for name, value in page.params.items()]
    yield from _list("Options, to be changed by an override", options)
    yield from _section("To silence it, in a ruleset of your own", f'overrides: [{{rules: [{docs.id}], suppress: true, reason: "..."}}]')
    yield from _section("Explains, where they are found with it", ", ".join(docs.explains))
    yield from _section("Explained by, where one of them is found", ", ".join(docs.explained_by))
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


def _verdict(id: str, found: Sequence[Page], pages: Sequence[Page]) -> str:
    first = found[0]
    if len(found) > 1:
        return f"{len(found)} rules support the diagnosis {first.diagnosis}: {', '.join(page.id for page in found)}."
    renamed = "" if id in (first.id, first.diagnosis) else f" (called {id} before)"
    kin = [page.id for page in pages if page.diagnosis == first.diagnosis and page is not first]
    also = f"; see also {', '.join(kin)}" if kin else ""
    return f"{first.id}{renamed} is defined in {first.source} (nndoctor rules show {first.id}){also}."
