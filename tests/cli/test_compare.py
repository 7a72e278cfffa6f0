"""Runs side by side: settings, findings, curves, and where they part; in the terminal, as JSON, Markdown and HTML."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from nndoctor.record import RecordWriter, RunFacts
from nndoctor.reports.compare import unique
from nndoctor.signals import Frame, Targets

from .conftest import HOSTILE, Command


def write(folder: Path, losses: list[float], *, lr: float, rules: Path, layer_off_at: int | None = None, names: tuple[str, ...] = ("a", "b")) -> Path:
    targets = Targets(layers=names, layer_kinds=("Linear",) * len(names), layer_depths=tuple(range(len(names))))
    facts = {"model": "LeNet", "optimizer": "Adam", "optimizer_settings": {"adam": {"lr": lr, "betas": [0.9, 0.999]}}, "seed": 1, "argv": "secret", "overhead": lr}
    with RecordWriter(folder, RunFacts(folder.name, 1e9, facts, (str(rules),)), targets) as writer:
        for step, loss in enumerate(losses, 1):
            off = 0.5 if layer_off_at is not None and step >= layer_off_at else 0.0
            values = {"loss": np.float32([loss]), "lr": np.float32([0.001]), "step.time": np.float32([lr]), "act.rms": np.float32([1.0, 2.0 + off])}
            writer.frame(Frame(step, 1e9 + step, None, values))
    assert writer.failure is None
    return folder


@pytest.fixture
def pair(here: Path, rules: Path) -> None:
    """Two runs that are alike until step 30, where the layer b of the second goes its own way, its loss from 41 on."""
    root = here / ".nndoctor/runs"
    write(root / "20240101-good", [2.0] * 100, lr=0.001, rules=rules)
    write(root / "20240102-bad", [2.0] * 40 + [9.0] * 60, lr=0.1, rules=rules, layer_off_at=30)


@pytest.mark.usefixtures("pair")
def test_compare_names_settings_findings_and_where_the_runs_part(nndoctor: Command) -> None:
    answer = nndoctor("compare", "good", "bad")
    assert answer.code == 0, answer.err
    assert re.search(r"^adam\.lr +0\.001 +0\.1$", answer.out, flags=re.MULTILINE)
    assert re.search(r"^loss-stays-high +– +warning since 41$", answer.out, flags=re.MULTILINE)
    assert "bad first differs at step 30: act.rms of b is 2 and 2.5; the losses part for good at step 41: loss is 2 and 9" in answer.out
    assert answer.verdict == "2 runs: adam.lr 0.001 / 0.1; loss-stays-high not in all of them."


@pytest.mark.usefixtures("pair")
def test_what_is_of_the_machine_or_of_nobodys_business_is_no_difference(nndoctor: Command) -> None:
    out = nndoctor("compare", "good", "bad", "--json").out
    assert "secret" not in out
    assert {setting["name"] for setting in json.loads(out)["settings"]} == {"adam.lr"}


@pytest.mark.usefixtures("pair")
def test_compare_as_json_carries_curves_and_divergence(nndoctor: Command) -> None:
    data = json.loads(nndoctor("compare", "good", "bad", "--format", "json").out)
    (parting,) = data["divergences"]
    assert parting == {
        "run": "bad", "compared_steps": 100, "first": {"step": 30, "signal": "act.rms", "target": "b", "values": [2.0, 2.5]},
        "parted": {"step": 41, "signal": "loss", "target": "", "values": [2.0, 9.0]},
    }  # fmt: skip
    assert [curve["run"] for curve in data["curves"]["loss"]] == ["good", "bad"]
    assert data["curves"]["loss"][1]["mean"][-1] == 9.0


def test_runs_that_measured_the_same_are_told_to_be_the_same(nndoctor: Command, here: Path, rules: Path) -> None:
    for name in ("one", "two", "three"):
        write(here / f".nndoctor/runs/{name}", [2.0] * 30, lr=0.1, rules=rules)
    answer = nndoctor("compare", "one", "two", "three")
    assert "two measured the same as one in all 30 steps of both" in answer.out
    assert "three measured the same as one" in answer.out
    assert answer.verdict == "3 runs: the same settings; the same findings."


def test_layers_are_held_against_those_of_the_same_name(nndoctor: Command, here: Path, rules: Path) -> None:
    write(here / ".nndoctor/runs/one", [2.0] * 30, lr=0.1, rules=rules, names=("a", "b"))
    write(here / ".nndoctor/runs/two", [2.0] * 30, lr=0.1, rules=rules, names=("b", "c"))
    (parting,) = json.loads(nndoctor("compare", "one", "two", "--json").out)["divergences"]
    assert parting["first"]["target"] == "b"
    assert parting["first"]["values"] == [2.0, 1.0]


@pytest.mark.usefixtures("pair")
def test_the_html_file_works_offline_runs_its_own_script_only_and_is_safe(nndoctor: Command, here: Path, rules: Path) -> None:
    write(here / ".nndoctor/runs/hostile", [3.0] * 30, lr=0.1, rules=rules, names=(HOSTILE, "b"))
    answer = nndoctor("compare", "good", "bad", "hostile", "-o", "out.html")
    assert answer.code == 0, answer.err
    text = (here / "out.html").read_text(encoding="utf-8")
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in html.unescape(text)
    assert "unsafe" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert "http" not in re.sub(r"<(svg|script).*?</\1>", "", text, flags=re.DOTALL).replace("http-equiv", "")
    assert "<img src=x" not in text
    assert text.count("<figure") >= 2


@pytest.mark.usefixtures("pair")
def test_markdown_has_a_table_for_each_part(nndoctor: Command) -> None:
    out = nndoctor("compare", "good", "bad", "--format", "md").out
    assert "| `loss-stays-high` | – | warning since 41 |" in out
    assert "## Settings that differ" in out


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("good",), "two runs or more"), (("good", "20240101"), "the same run twice"), (("good", "bad", "-o", "x.pdf"), ".html, .json or .md"), (("good", "none"), "no run 'none'")],
)
def test_what_cannot_be_compared_is_refused_with_advice(nndoctor: Command, arguments: tuple[str, ...], said: str) -> None:
    answer = nndoctor("compare", *arguments)
    assert answer.code == 2
    assert said in answer.err


def test_names_lose_their_time_where_they_stay_different() -> None:
    assert unique(["20240101-120000-a", "20240102-120000-b"]) == ("a", "b")
    assert unique(["20240101-a", "20240102-a"]) == ("20240101-a", "20240102-a")
    assert unique(["x", "x"]) == ("x (1)", "x (2)")


# -- formats of diagnose and report


@pytest.mark.parametrize(("format", "begins"), [("md", "# sick"), ("sarif", "{"), ("junit", "<?xml"), ("github", "::error")])
def test_diagnose_speaks_the_formats_of_others_and_keeps_its_exit_code(nndoctor: Command, sick: Path, format: str, begins: str) -> None:
    answer = nndoctor("diagnose", "--format", format)
    assert answer.code == 1
    assert answer.out.startswith(begins)
    assert "\x1b" not in answer.out


@pytest.mark.parametrize(("format", "name"), [("sarif", "report.sarif"), ("junit", "report-junit.xml"), ("github", "report-github.txt")])
def test_report_writes_them_beside_the_run(nndoctor: Command, sick: Path, format: str, name: str) -> None:
    assert json.loads(nndoctor("report", "--format", format, "--json").out)["report"].endswith(name)
    assert (sick / name).stat().st_size > 100
