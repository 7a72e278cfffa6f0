"""The other formats, and writing any of them: whole or not at all."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from nndoctor.findings import Diagnosis, Evidence, Finding, RuleDocs, Severity
from nndoctor.history import History
from nndoctor.reports import FORMATS, ReportError, html, json_report, markdown, render_report, text, write_report
from nndoctor.reports.view import RunView, build_view
from nndoctor.signals import Signal
from tests.reports import report_runs as runs


@pytest.fixture(scope="module")
def ill() -> RunView:
    return runs.ill(200, 8)


def test_json_carries_steps_findings_and_the_curves(ill: RunView) -> None:
    document = json.loads(json_report.render(ill))
    assert document["schema"] == "nndoctor-report/1"
    assert document["steps"] == 200
    assert [f["rule"] for f in document["findings"]] == [f.rule for f in ill.diagnosis.findings]
    assert Finding.from_dict(document["findings"][0]) == ill.diagnosis.findings[0]
    assert document["root_causes"] == ["learning-rate-too-high", "dead-relu"]
    assert document["series"]["loss"]["steps"][0] == 1
    assert set(document["newest"]["grad.norm"]) == set(ill.targets.layers)
    assert document["after"]["label"] == "lr=2e-4"


@pytest.mark.parametrize("format", ["text", "markdown", "html", "json"])
def test_every_format_says_what_the_run_was_taken_for(format: str) -> None:
    view = runs.view(runs.history(50, 2), facts={"taken_for": ["a <GAN>: two optimizers", "full-batch training"]})
    rendered = {"text": text.render, "markdown": markdown.render, "json": json_report.render, "html": html.render}[format](view)
    if format == "json":
        assert json.loads(rendered)["taken_for"] == ["a <GAN>: two optimizers", "full-batch training"]
    else:
        assert re.search(r"[Tt]aken for: a (<|&lt;)GAN(>|&gt;): two optimizers; full-batch training", rendered)
    assert format != "html" or "<GAN>" not in rendered.replace("\\u003c", "")


def test_json_has_no_number_that_json_does_not_know() -> None:
    evidence = Evidence("loss", None, math.nan, math.inf, ">", "loss", (1, 2), (1.0, math.nan))
    made = History.from_series({"loss": [1.0, math.inf]})
    view = runs.view(made, (Finding("nan-or-inf", "nan-or-inf", Severity.CRITICAL, "high", (), 1, 2, evidence=(evidence,)),))

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is no JSON")

    document = json.loads(json_report.render(view), parse_constant=refuse)
    told = document["findings"][0]["evidence"][0]
    assert (told["value"], told["threshold"]) == ("NaN", "Infinity")
    assert float(told["threshold"]) == math.inf
    assert document["series"]["loss"]["mean"] == [1.0, "Infinity"]


def test_text_tells_cause_place_evidence_and_fix_and_ends_with_the_verdict(ill: RunView) -> None:
    told = text.render(ill)
    assert "1. Learning rate too high [error, high confidence] since step 140" in told
    assert "fix: Lower the learning rate: lr: 3e-3 -> 2e-4 (high confidence)" in told
    assert "evidence: act.dead_fraction at stage1.block0.relu3 = 74\u202f% (> 50\u202f%)".replace("\u202f", " ") in told.replace("\u202f", " ")
    assert told.splitlines()[-1] == ill.diagnosis.verdict
    assert max(len(line) for line in told.splitlines()[:-1]) <= 100


def test_text_of_a_healthy_run_names_no_cause() -> None:
    told = text.render(runs.healthy(30, 2))
    assert "A, healthy" in told
    assert "fix:" not in told
    assert "Other findings" not in told


def test_markdown_has_headings_tables_and_a_diff(ill: RunView) -> None:
    told = markdown.render(ill)
    assert told.startswith("# resnet20-a3f1: D, ill\n")
    assert "### Learning rate too high" in told
    assert "```diff\n- lr: 3e-3\n+ lr: 2e-4\n```" in told
    for block in re.findall(r"(?:^\|.*\n)+", told, re.M):
        cells = {len(re.findall(r"(?<!\\)\|", row)) for row in block.splitlines()}
        assert len(cells) == 1, block


@pytest.mark.parametrize("render", [markdown.render, text.render])
def test_hostile_names_reach_neither_terminal_nor_markup(render: Any) -> None:
    evil = "</script><img src=x onerror=alert(1)>|a`b``c\n# heading [x](http://y)"
    made = runs.history(12, 8, names=(evil, *runs.HOSTILE[1:]))
    found = Finding("r", "r", Severity.ERROR, "high", (evil, "blocks[/x]", "safe\u202egnp"), 2, 12, message=evil, evidence=(Evidence("loss", evil, 1.0),))
    told = render(runs.view(made, (found,), name=evil, facts={"model": evil}))
    assert not set(told) & {"\x1b", "\x00", "\u202e", "\u2066"}
    assert "\n# heading" not in told
    if render is markdown.render:
        prose = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", told)
        assert "<img" not in prose
        assert "](http" not in prose


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("view", [runs.empty(), runs.view(runs.history(1, 1)), runs.view(runs.history(4, 0))], ids=["empty", "one step", "no layers"])
def test_every_format_renders_odd_runs(name: str, view: RunView) -> None:
    assert render_report(view, name).strip()


@pytest.mark.parametrize("suffix", ["html", "htm", "json", "md", "markdown", "txt", "HTML"])
def test_the_suffix_says_the_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"post mortem.{suffix}"
    view = runs.view(History.from_series({"loss": [1.0, 0.5]}))
    assert write_report(view, path) == path
    assert path.read_text(encoding="utf-8") == render_report(view, suffix)
    assert [p.name for p in tmp_path.iterdir()] == [path.name], "no leftover beside the report"


def test_a_format_may_be_said_against_the_suffix(tmp_path: Path) -> None:
    path = write_report(runs.empty(), str(tmp_path / "report.log"), format="txt")
    assert "not examined" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "format", "told"),
    [
        ("report.pdf", None, r"expected \.html, \.json, \.md, \.txt"),
        ("report", None, "from its suffix"),
        ("report.html", "pdf", "unknown report format 'pdf'; expected one of html, json, md, txt"),
        ("missing/report.html", None, "there is no folder"),
        (".", "html", "it is a folder"),
    ],
)
def test_a_wrong_path_is_told_with_what_was_expected(tmp_path: Path, name: str, format: str | None, told: str) -> None:
    with pytest.raises(ReportError, match=told):
        write_report(runs.empty(), tmp_path / name, format)
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_cannot_be_rendered_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.txt"
    path.write_text("the old one", encoding="utf-8")

    def broken(view: RunView) -> str:
        raise RuntimeError("no")

    monkeypatch.setattr(text, "render", broken)
    with pytest.raises(RuntimeError, match="no"):
        write_report(runs.empty(), path)
    assert path.read_text(encoding="utf-8") == "the old one"


class Reader:
    """What a view takes from a record."""

    class facts:
        name = "run-1"
        started = 5.0
        facts = {"model": "net", "host": "secret"}  # noqa: RUF012

    class _Event:
        step, kind, text = 3, "note", "hello"

    status = "killed"
    published = (Signal("metric.alignment", "layer", "1", "Cosine."),)
    problems = ("frame 7 is damaged",)

    def events(self) -> list[Any]:
        return [self._Event()]


def test_the_view_of_a_record_takes_facts_status_events_and_problems() -> None:
    made = History.from_series({"loss": [1.0]})
    docs = {"r": RuleDocs("r", "r", "R")}
    view = build_view(Reader(), Diagnosis(steps=1, facts={"device": "cpu"}), made, docs, (made, Diagnosis(), "lr=1"))  # type: ignore[arg-type]
    assert view.facts == {"started": 5.0, "model": "net", "device": "cpu"}
    assert (view.name, view.status, view.problems) == ("run-1", "killed", ("frame 7 is damaged",))
    assert view.published == Reader.published
    assert view.notes[0].text == "hello"
    assert view.before_after is not None
    assert view.before_after.label == "lr=1"
