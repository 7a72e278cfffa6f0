"""The generated part of the documentation: a page for everything there is, and every link between pages leads somewhere."""

from __future__ import annotations

import doctest
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nndoctor.cli.app import COMMANDS
from nndoctor.signals import CATALOGUE
from nndoctor.zoo.case import all_cases

REPOSITORY = Path(__file__).resolve().parent.parent
DOCS = REPOSITORY / "docs"


@pytest.fixture(scope="module")
def website() -> Iterator[Any]:
    """The package that makes the pages; it lives with the scripts."""
    sys.path.insert(0, str(REPOSITORY / "scripts"))
    try:
        import website.pages

        yield website
    finally:
        sys.path.remove(str(REPOSITORY / "scripts"))


@pytest.fixture(scope="module")
def known(website: Any) -> Any:
    from website.knowledge import knowledge

    return knowledge()


@pytest.fixture(scope="module")
def pages(website: Any, known: Any) -> dict[str, str]:
    made: dict[str, str] = website.pages.every_page(known)
    return made


def test_there_is_a_page_for_every_diagnosis_signal_and_command(pages: dict[str, str], known: Any) -> None:
    named = yaml.safe_load((DOCS / "catalogue.yaml").read_text(encoding="utf-8"))
    wanted = {f"diagnoses/{name}.md" for group in named.values() for name in group}
    wanted |= {f"diagnoses/{rule.diagnosis}.md" for rule in known.rules}
    wanted |= {f"signals/{signal.name}.md" for signal in CATALOGUE}
    wanted |= {f"commands/{name}.md" for name in COMMANDS}
    assert wanted - pages.keys() == set()


def test_a_diagnosis_has_its_rules_their_docs_its_cases_and_its_row_of_the_clinic(pages: dict[str, str]) -> None:
    page = pages["diagnoses/dead-relu.md"]
    for part in ("## In the clinic", "$ nndoctor demo dead-relu", "### `dead-from-the-start`", "#### How to confirm", "#### Known problems", "signals/act.dead_fraction.md"):
        assert part in page, part
    assert "https://arxiv.org/abs/1903.06733" in page
    assert "when: act.dead_fraction > dead" in page


def test_every_sick_case_stands_on_the_page_of_its_diagnosis(pages: dict[str, str]) -> None:
    assert [case.name for case in all_cases() if case.diagnosis and f"nndoctor demo {case.name}\n" not in pages[f"diagnoses/{case.diagnosis}.md"]] == []


def test_a_rule_as_shown_is_the_rule_as_written_without_its_docs(known: Any, website: Any) -> None:
    from website.diagnoses import written

    for rule in known.rules:
        shown = yaml.safe_load(written(rule))[0]
        assert shown["id"] == rule.id
        assert "docs" not in shown, rule.id
        assert "when" in shown, rule.id


def test_nearly_every_signal_says_which_file_measures_it(known: Any) -> None:
    nowhere = [signal.name for signal in CATALOGUE if signal.name not in known.measured_in and not signal.name.startswith("context.")]
    assert len(nowhere) <= len(CATALOGUE) // 10, nowhere


def test_links_of_the_generated_pages_lead_to_pages(pages: dict[str, str]) -> None:
    there = {*pages, *(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.*"))}
    broken = []
    for name, markdown in pages.items():
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", re.sub(r"```.*?```|`[^`]*`", "", markdown, flags=re.DOTALL)):
            if posixpath.normpath(posixpath.join(posixpath.dirname(name), target)) not in there:
                broken.append(f"{name}: {target}")
    assert broken == []


def test_written_pages_that_are_not_in_the_navigation_are_none() -> None:
    navigation = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    assert [path for path in DOCS.rglob("*.md") if path != DOCS / "README.md" and f"{path.relative_to(DOCS)}" not in navigation] == []


def test_text_of_rules_is_not_taken_for_markup(website: Any) -> None:
    import website.text

    assert doctest.testmod(website.text).failed == 0
    assert website.text.prose("a * b * c | d") == r"a \* b \* c \| d"


def test_what_belongs_to_a_page_alone_is_put_into_it(website: Any, known: Any) -> None:
    zoo = website.pages.linked((DOCS / "zoo.md").read_text(encoding="utf-8"), known, "zoo.md")
    assert all(f"`{case.name}`" in zoo for case in all_cases())
    catalogue = website.pages.linked((DOCS / "catalogue.md").read_text(encoding="utf-8"), known, "catalogue.md")
    assert "[`dead-relu`](diagnoses/dead-relu.md)" in catalogue


def test_a_broken_link_fails_the_build() -> None:
    """mkdocs counts for ``strict`` only the warnings that it is allowed to say."""
    assert yaml.load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)["strict"] == "true"
    recipe = re.search(r"^\t.*mkdocs build.*$", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert recipe is not None
    assert "-q" not in recipe[0]
    assert "make --no-print-directory docs" in (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
