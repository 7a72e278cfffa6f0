"""The documentation quotes code that is there, and names files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(str(p.relative_to(REPOSITORY)) for p in (REPOSITORY / "docs").glob("*.md"))]
QUOTE = re.compile(r"^`(?P<path>[\w./-]+)`[^\n]*\n\n```\w*\n(?P<code>.*?)^```", flags=re.DOTALL | re.MULTILINE)
QUOTING = [(REPOSITORY / "docs" / page).read_text(encoding="utf-8") for page in ("how-it-works.md", "integrations.md")]
QUOTES = [(match["path"], match["code"]) for text in QUOTING for match in QUOTE.finditer(text)]
COMPLETE = re.findall(r"^```python\n(.*?)^```", QUOTE.sub("", QUOTING[1]), flags=re.DOTALL | re.MULTILINE)

WRITTEN_LATER = {"benchmarks/overhead.json"}
MADE_WITH_THE_SITE = ("signals/", "commands/", "diagnoses/")  # pages that test_website asks for, under docs/


@pytest.mark.parametrize(("path", "code"), QUOTES, ids=[f"{i}-{path}" for i, (path, _) in enumerate(QUOTES)])
def test_quoted_lines_stand_in_the_file_in_that_order(path: str, code: str) -> None:
    source = iter([line.strip() for line in (REPOSITORY / path).read_text(encoding="utf-8").splitlines()])
    for line in (line.strip() for line in code.splitlines()):
        if line and line != "...":
            assert line in source, f"{path} no longer has, in this order: {line}"


@pytest.mark.parametrize("code", COMPLETE, ids=range(len(COMPLETE)))
def test_what_the_page_on_integrations_shows_runs(code: str) -> None:
    exec(compile(code, "docs/integrations.md", "exec"), {})


def test_the_walk_quotes_at_least_six_files() -> None:
    assert len({path for path, _ in QUOTES}) >= 6


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    file = REPOSITORY / page
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", file.read_text(encoding="utf-8")):
        made = file.parent.name == "docs" and target.startswith(MADE_WITH_THE_SITE)
        assert made or (file.parent / target).exists(), f"{page} links to {target}"


@pytest.mark.parametrize("page", PAGES)
def test_files_named_in_the_text_exist(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    for name in re.findall(r"`((?:nndoctor|rulesets|tests|benchmarks|scripts|examples|docs)/[\w./-]+)`", text):
        assert (REPOSITORY / name).exists() or "your-" in name or name in WRITTEN_LATER, f"{page} names {name}"
