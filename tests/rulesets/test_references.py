"""What the built-in rules and the zoo refer to: each reference can be looked up, and one address has one title."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest

from nndoctor.rules import Rule, Ruleset, load_rulesets
from nndoctor.zoo.case import Case, all_cases

CORE: Ruleset = load_rulesets(["core"])
SICK: tuple[Case, ...] = tuple(case for case in all_cases() if case.diagnosis is not None)
SOURCED: tuple[Case, ...] = tuple(case for case in all_cases() if case.source)
REFERENCE = re.compile(r"(?P<title>\S.*\S): (?P<url>https?://\S+?)(?P<place> \(.+\))?")
"""``Authors year, title: URL (the place in it)``"""

each_rule = pytest.mark.parametrize("rule", CORE.rules, ids=lambda rule: rule.id)


def _complaint(url: str) -> str | None:
    """What is wrong with the spelling of `url`; None if nothing is."""
    if re.fullmatch(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+", url) is None:
        return "has a character that no URL may have"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme not in ("http", "https"):
        return "is neither http nor https"
    if re.fullmatch(r"([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}", parts.hostname or "") is None or port is not None:
        return "has no proper host"
    if parts.username is not None or "//" in parts.path:
        return "has a name or an empty folder in it"
    return "ends in a mark of the sentence around it" if url[-1] in ".,;:)" else None


@pytest.mark.parametrize(
    "url",
    [
        "https://arxiv.org/abs/1502.01852",
        "http://yann.lecun.com/exdb/publis/pdf/lecun-98b.pdf",
        "https://doi.org/10.1007/3-540-49430-8_3",
        "https://docs.pytorch.org/docs/stable/optim.html#constructing-it",
    ],
)
def test_proper_urls_pass(url: str) -> None:
    assert _complaint(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "arxiv.org/abs/1502.01852",
        "ftp://arxiv.org/abs/1502.01852",
        "https://arxiv/abs/1502.01852",
        "https:///abs/1502.01852",
        "https://arxiv.org/abs/1502.01852.",
        "https://arxiv.org//abs/1502.01852",
        "https://arxiv.org/abs/a b",
        "https://[arxiv.org/abs",
    ],
)
def test_improper_urls_do_not(url: str) -> None:
    assert _complaint(url) is not None


@each_rule
def test_a_rule_has_references_that_can_be_looked_up(rule: Rule) -> None:
    assert rule.docs.references
    for reference in rule.docs.references:
        match = REFERENCE.fullmatch(reference)
        assert match, f"{reference!r} is not 'authors year, title: URL (place)'"
        assert reference.count("://") == 1, reference
        assert _complaint(match["url"]) is None, f"{match['url']} {_complaint(match['url'])}"


@each_rule
def test_a_rule_cites_nothing_twice(rule: Rule) -> None:
    assert len(set(rule.docs.references)) == len(rule.docs.references)


def test_one_address_has_one_title_and_one_title_one_address() -> None:
    titles: dict[str, set[str]] = {}
    addresses: dict[str, set[str]] = {}
    for reference in (reference for rule in CORE.rules for reference in rule.docs.references):
        match = REFERENCE.fullmatch(reference)
        assert match, reference
        titles.setdefault(match["url"], set()).add(match["title"])
        addresses.setdefault(match["title"], set()).add(match["url"])
    assert not {url: found for url, found in titles.items() if len(found) > 1}
    assert not {title: found for title, found in addresses.items() if len(found) > 1}


@pytest.mark.parametrize("case", SICK, ids=lambda case: case.name)
def test_a_sick_case_cites_a_report(case: Case) -> None:
    assert case.source


@pytest.mark.parametrize("case", SOURCED, ids=lambda case: case.name)
def test_the_source_of_a_case_is_one_proper_url(case: Case) -> None:
    assert _complaint(case.source) is None, f"{case.source} {_complaint(case.source)}"
