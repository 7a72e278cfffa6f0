"""All generated pages: the name each has in the site, and its Markdown."""

from __future__ import annotations

import re

from make_catalogue import Entry

from .commands import command_pages
from .diagnoses import diagnosis_pages
from .knowledge import REPOSITORY, Knowledge, knowledge
from .signals import signal_pages
from .zoo import zoo_lists

FROM_THE_ROOT = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md", "examples.md": "examples/README.md"}
"""Page to the file outside of docs/ that it is."""

ZOO_MARK = "<!-- the cases of the zoo stand here in the documentation site; `nndoctor demo --list` prints them -->"


def every_page(known: Knowledge | None = None) -> dict[str, str]:
    """Name in the site to Markdown, for every page that is made and not written."""
    known = known or knowledge()
    pages = dict([*diagnosis_pages(known), *signal_pages(known), *command_pages()])
    for name, source in FROM_THE_ROOT.items():
        pages[name] = _at_home((REPOSITORY / source).read_text(encoding="utf-8"))
    return pages


def _at_home(markdown: str) -> str:
    """A page from outside of docs/: its links lead to pages of the site, and those to files are their text alone."""
    for there, here in (("](../docs/", "]("), ("](docs/", "]("), ("](../README.md", "](index.md"), ("](README.md", "](index.md"), ("](examples/README.md", "](examples.md")):
        markdown = markdown.replace(there, here)
    return re.sub(r"\[([^\]]*)\]\((?!https?:)[^)]*\.(?:py|ya?ml|ipynb|toml|txt|json)\)", r"\1", markdown)


def diagnoses_by_group(known: Knowledge) -> list[dict[str, list[dict[str, str]]]]:
    """The part of the navigation that lists the diagnoses by group."""
    further = [name for name in known.entries if not any(name == entry.name for found in known.groups.values() for entry in found)]
    groups = {**known.groups, "Of the profiles": [Entry(name, "") for name in further]} if further else known.groups
    return [{group: [{entry.name: f"diagnoses/{entry.name}.md"} for entry in found]} for group, found in groups.items()]


def linked(markdown: str, known: Knowledge, page: str) -> str:
    """What a written page gets in the site: links from names in code to their pages, and the lists of the zoo."""
    markdown = markdown.replace(ZOO_MARK, zoo_lists(known)).replace("](../../CONTRIBUTING.md", "](../contributing.md")
    markdown = markdown.replace("](../CONTRIBUTING.md", "](contributing.md")
    if page == "catalogue.md":
        markdown = _linked_catalogue(markdown, known)
    return markdown.replace("](../examples/README.md", "](examples.md")


def _linked_catalogue(markdown: str, known: Knowledge) -> str:
    def link(match: re.Match[str]) -> str:
        name = match[1]
        if name in known.entries:
            return f"[`{name}`](diagnoses/{name}.md)"
        if name in known.signals.names():
            return f"[`{name}`](signals/{name}.md)"
        rule = next((rule for rule in known.rules if rule.id == name), None)
        return match[0] if rule is None else f"[`{name}`](diagnoses/{rule.diagnosis}.md#{name})"

    return re.sub(r"`([a-z0-9_.-]+)`", link, markdown)
