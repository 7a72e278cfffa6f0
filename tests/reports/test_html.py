"""The page without a browser: complete, one file, safe with hostile names, readable, small."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from nndoctor.findings import Diagnosis, Evidence, Finding, Fix, NotExamined, Severity
from nndoctor.history import History
from nndoctor.reports import html, svg
from nndoctor.reports.charts import Band, Chart, duration, number, quantity, run_line, spread_line, ticks
from nndoctor.reports.sections import SECTIONS, own
from nndoctor.reports.sections.common import factor, reading, remedy, scientific, sentence, telling
from nndoctor.reports.sections.layers import findings_by_layer
from nndoctor.reports.sections.measured import flat, overhead_share
from nndoctor.reports.sections.timeline import not_finite
from nndoctor.reports.view import RunView, current_value, grade, public_facts, spelled
from nndoctor.signals import CATALOGUE, Signal, Targets
from tests.reports import report_runs as runs


class Page(HTMLParser):
    """The parsed page: its elements, the text people read, and the texts of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self._inside: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in self.raw else None

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        (self.raw[self._inside] if self._inside else self.words).append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.elements if "id" in attributes]


@pytest.fixture(scope="module")
def ill() -> RunView:
    return runs.ill(400, 12)


@pytest.fixture(scope="module")
def ill_text(ill: RunView) -> str:
    return html.render(ill)


@pytest.fixture(scope="module")
def ill_page(ill_text: str) -> Page:
    return Page(ill_text)


def packed_data(text: str) -> Any:
    found = re.search(r'id="nndoctor-data">([^<]*)<', text)
    assert found
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


def test_the_page_has_every_section_of_an_ill_run_once(ill_page: Page) -> None:
    ids = ill_page.ids()
    assert [section.id for section in SECTIONS if section.id in ids] == [section.id for section in SECTIONS]
    assert len(ids) == len(set(ids))


def test_the_verdict_names_cause_step_and_change_in_words(ill_page: Page) -> None:
    assert "Learning rate too high since step 280" in ill_page.text
    assert "lr: 3e-3" in ill_page.text
    assert "lr: 2e-4" in ill_page.text


def test_every_metric_of_the_users_own_has_a_curve_its_meaning_and_its_range(ill: RunView) -> None:
    shown = own.build(ill)
    assert shown is not None
    assert [(chart.title, chart.note) for chart in shown["charts"]] == [
        ("metric.alignment", "Cosine between weights and the step that they make. Median of 12 layers, between their 10th and 90th percentile."),
        ("metric.surprise", "Entropy of the prediction <of a batch>."),
    ]
    assert [(row.name, row.where) for row in shown["rows"]] == [("metric.alignment", "12 layers"), ("metric.surprise", "the run")]
    assert shown["rows"][1].high == "2.3"
    assert [signal.name for signal in shown["silent"]] == ["metric.silent"]


def test_many_metrics_of_the_users_own_have_a_row_each_but_not_a_chart_each() -> None:
    many = tuple(Signal(f"metric.m{number}", "run", "1", "") for number in range(40))
    measured = History.from_series({signal.name: [1.0, 2.0] for signal in many}, catalogue=CATALOGUE.extended(many))
    shown = own.build(runs.view(measured, published=many))
    assert shown is not None
    assert (len(shown["charts"]), shown["unshown"], len(shown["rows"])) == (own.CHARTS, 40 - own.CHARTS, 40)


def test_without_metrics_of_the_users_own_there_is_no_such_section() -> None:
    assert own.build(runs.healthy(50, 2)) is None


def test_symptoms_are_folded_under_their_cause_also_indirect_ones(ill: RunView) -> None:
    root = ill.diagnosis.root_causes[0]
    assert {symptom.rule for symptom in ill.symptoms_of(root)} == {"loss-rising", "layer-gradient-spike"}
    assert ill.symptoms_of(ill.diagnosis.root_causes[1]) == ()


def test_a_healthy_run_has_no_causes_section_and_says_that_all_is_well() -> None:
    page = Page(html.render(runs.healthy(60, 3)))
    assert "causes" not in page.ids()
    assert "No problems found in 60 steps." in page.text
    assert "6 rules watched 3 layers" in page.text


def test_nothing_in_the_page_asks_the_network_for_anything(ill_page: Page, ill_text: str) -> None:
    for tag, attributes in ill_page.elements:
        assert tag not in ("iframe", "object", "embed", "form", "base", "audio", "video", "source"), tag
        for name in ("src", "href", "xlink:href", "action", "srcset", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value)
    assert not re.search(r"url\(|@import", "".join(ill_page.raw["style"]))
    script = html.script()
    assert not re.search(r"\bfetch\(|XMLHttpRequest|WebSocket|import\(|EventSource|sendBeacon", script)


def test_scripts_and_styles_are_allowed_by_hash_only(ill_page: Page) -> None:
    policy = next(a["content"] for tag, a in ill_page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    scripts = ill_page.raw["script"][-2:]
    for text in [*scripts, *ill_page.raw["style"]]:
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy
    assert not [a for _, a in ill_page.elements for name in a if name.startswith("on") or name == "style"]


def test_page_script_writes_names_as_text_only() -> None:
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", html.script())


@pytest.mark.parametrize("place", ["layer", "run", "fact", "message", "observed", "group", "reason", "label"])
def test_a_hostile_name_is_text_wherever_it_appears(place: str) -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    made = runs.history(20, 6, sick_from=10, names=(evil,) if place == "layer" else ())
    options: dict[str, Any] = {}
    found = list(runs.findings(made, 10))
    if place == "run":
        options["name"] = evil
    if place == "fact":
        options["facts"] = {"model": evil, evil: {"nested": evil}, "list": [evil]}
    if place == "message":
        found = [Finding(evil, evil, Severity.ERROR, "high", (evil,), 1, 5, message=evil, fixes=(Fix(evil, {evil: evil}),), suppressed=None)]
    if place == "observed":
        made = History.from_series({f"observed.{evil}": [1.0, 2.0, 3.0]})
    if place == "group":
        made = History.from_series({"group.lr": {evil: [0.1, 0.2], "other": [0.1, 0.1]}})
    view = runs.view(made, tuple(found), **options)
    if place == "reason":
        view = RunView("r", {}, "finished", made.targets, made, Diagnosis(not_examined=(NotExamined(evil, evil),), steps=20))
    if place == "label":
        view = runs.view(made, (), before_after=runs.BeforeAfter(made, Diagnosis(steps=20), evil))
    text = html.render(view)
    page = Page(text)
    assert evil not in text
    assert evil in page.text or "src=x onerror=alert(1)>" in page.text
    assert not [a for tag, a in page.elements if tag == "img" and not (a.get("src") or "").startswith("data:")]


def test_invisible_and_reordering_characters_do_not_reach_the_page() -> None:
    text = html.render(runs.ill(40, 8, names=runs.HOSTILE))
    assert not set(text) & {"\u202e", "\u2066", "\x1b", "\x00"}
    page = Page(text)
    assert "blocks[/x]" in page.text
    assert "safegnp.exe" in page.text
    assert "{{ 7*7 }}" in page.text
    data = packed_data(text)
    assert "blocks[/x]" in data["layers"]
    assert not any("\u202e" in name for name in data["layers"])


def test_the_diagnosis_in_the_page_is_json_that_cannot_close_its_element(ill: RunView) -> None:
    text = html.render(runs.ill(40, 8, names=runs.HOSTILE))
    found = re.search(r'id="nndoctor-diagnosis">(.*?)</script>', text, re.S)
    assert found
    assert not set(found[1]) & set("<>&")
    document = json.loads(found[1])
    assert document["steps"] == 40
    assert document["findings"][0]["rule"] == "learning-rate-too-high"
    assert runs.HOSTILE[0] in document["findings"][-2]["targets"] or any(runs.HOSTILE[0] in f["targets"] for f in document["findings"])


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(runs.empty(), id="no frames"),
        pytest.param(runs.view(runs.history(1, 1)), id="one step, one layer"),
        pytest.param(runs.view(runs.history(2, 0)), id="no layers"),
        pytest.param(runs.view(runs.history(30, 2, nan_from=1)), id="never a finite loss"),
        pytest.param(runs.view(History.from_series({"loss": [2.0, 1.0]})), id="loss only"),
        pytest.param(runs.view(History.from_series({"grad.norm": {"a": [float("nan"), 0.0], "b": [0.0, 0.0]}})), id="zero gradients"),
        pytest.param(runs.view(History.from_series({"loss": [3e38, 1e-38, -1.0]})), id="overflow"),
        pytest.param(runs.ill(12, 1), id="ill, one layer"),
        pytest.param(runs.ill(3, 400), id="many layers"),
    ],
)
def test_odd_runs_render(view: RunView) -> None:
    text = html.render(view)
    assert "verdict" in Page(text).ids()
    assert packed_data(text)["palette"]


def test_a_run_without_steps_is_not_called_healthy() -> None:
    assert grade(Diagnosis()).word == "not examined"
    assert "Nothing was recorded" in Page(html.render(runs.empty())).text


def test_not_measured_is_a_dash_and_zero_is_zero() -> None:
    made = History.from_series({"grad.norm": {"a": [0.0], "b": [float("nan")]}, "weight.norm": {"a": [1.0], "b": [1.0]}})
    rows = re.findall(r"<tr[^>]*>.*?</tr>", html.render(runs.view(made)), re.S)
    of = {name: next(row for row in rows if f'"name">{name}<' in row and 'data-value="' in row) for name in "ab"}
    assert 'data-value="0">0<' in of["a"]
    assert 'data-value="">–<' in of["b"]


def test_layers_with_findings_come_first_and_a_parameter_counts_for_its_layer() -> None:
    made = runs.history(5, 4)
    about = Finding("r", "r", Severity.ERROR, "high", (made.targets.params[5],), 1, 5)
    view = runs.view(made, (about,))
    assert findings_by_layer(view) == {2: [about]}
    section = next(s for s in SECTIONS if s.id == "layers").build(view)
    assert section is not None
    assert section["rows"][0].name == made.targets.layers[2]


def test_a_silenced_finding_does_not_move_a_layer_up() -> None:
    made = runs.history(5, 4)
    silenced = Finding("r", "r", Severity.ERROR, "high", (made.targets.layers[3],), 1, 5, suppressed="known")
    assert findings_by_layer(runs.view(made, (silenced,))) == {}


@pytest.mark.parametrize(
    ("findings", "letter"),
    [
        ([], "A"),
        ([(Severity.INFO, "high", "firing")], "A"),
        ([(Severity.WARNING, "low", "firing")], "B"),
        ([(Severity.ERROR, "high", "cleared")], "B"),
        ([(Severity.WARNING, "medium", "firing")], "C"),
        ([(Severity.ERROR, "low", "firing"), (Severity.WARNING, "high", "firing")], "D"),
        ([(Severity.CRITICAL, "high", "clearing")], "E"),
    ],
)
def test_the_grade_follows_the_worst_finding_that_still_speaks(findings: list[Any], letter: str) -> None:
    made = tuple(Finding("r", "r", severity, sure, (), 1, 2, state) for severity, sure, state in findings)
    assert grade(Diagnosis(made, steps=9)).letter == letter


def test_a_fix_is_a_diff_from_the_value_of_the_run() -> None:
    made = History.from_series({"group.lr": {"a": [0.003], "b": [0.003]}, "group.weight_decay": {"a": [0.1], "b": [0.0]}, "lr": [0.5]})
    assert remedy(Fix("lower", {"lr": 2e-4}), made).changes == (("lr", "3e-3", "2e-4"),)
    assert current_value(made, "weight_decay") is None, "groups differ, so there is no one value to replace"
    assert remedy(Fix("x", {"patience": 3}), made).changes == (("patience", "", "3"),)
    assert remedy(Fix("x", {"lr": 2e-4}), made).copied == "lr=2e-4"
    assert remedy(Fix("Use LeakyReLU"), made).copied == "Use LeakyReLU"
    spoken = remedy(Fix("Remove the softmax at the end", {"final_activation": "none"}), made)
    assert (spoken.changes, spoken.copied) == ((), "Remove the softmax at the end")
    assert remedy(Fix("Clear", call="optimizer.zero_grad()", place="before backward"), made).copied == "optimizer.zero_grad()"


def test_private_facts_stay_out_at_any_depth() -> None:
    told = public_facts({"model": "net", "host": "gpu7", "versions": {"torch": "2.6", "argv": ["x"]}, "run_dir": "/home/me"})
    assert told == {"model": "net", "versions": {"torch": "2.6"}}


def test_the_page_of_the_same_run_is_the_same(ill: RunView, ill_text: str) -> None:
    assert html.render(ill) == ill_text


def test_charts_of_the_page_and_of_its_script_are_the_same_charts(ill_page: Page, ill_text: str) -> None:
    drawn = [a["data-chart"] for tag, a in ill_page.elements if "data-chart" in a]
    assert drawn == [chart["id"] for chart in packed_data(ill_text)["charts"]]
    for chart in packed_data(ill_text)["charts"]:
        for line in chart["lines"]:
            assert len(line["mean"]) == len(chart["steps"])
            assert len(line.get("low", line["mean"])) == len(line.get("high", line["mean"])) == len(chart["steps"])


def test_every_chart_has_words_and_a_table(ill_page: Page, ill_text: str) -> None:
    figures = re.findall(r'<figure class="chart".*?</figure>', ill_text, re.S)
    assert len(figures) >= 6
    for figure in figures:
        assert re.search(r'role="img" aria-label="[^"]{20,}"', figure)
        assert "<table>" in figure


def test_ten_thousand_steps_of_sixty_layers_fit_in_a_megabyte() -> None:
    made = runs.history(1500, 60, sick_from=1000, every=2)
    assert len(html.render(runs.view(made, runs.findings(made, 1000)))) < 1_000_000, "the history keeps as much of 10 000 steps"


# -- charts -------------------------------------------------------------------------------------------------------


def test_a_chart_tells_first_last_lowest_and_highest() -> None:
    line = run_line(History.from_series({"loss": [3.0, 1.0, 2.0]}), "loss")
    assert line is not None
    assert Chart("c", "Loss", (line,)).summary() == "loss: 3 at step 1, 2 at step 3; lowest 1 at step 2, highest 3 at step 1."


def test_a_signal_never_measured_has_no_line() -> None:
    assert run_line(History.from_series({"loss": [1.0]}), "val.loss") is None
    assert spread_line(History(Targets(layers=("a",))), "grad.norm", "x") is None


def test_the_spread_line_is_the_median_between_tenth_and_ninetieth_percentile() -> None:
    values = {f"l{i}": [float(i)] for i in range(11)}
    line = spread_line(History.from_series({"grad.norm": values}), "grad.norm", "median")
    assert line is not None
    assert (line.low[0], line.mean[0], line.high[0]) == (1.0, 5.0, 9.0)


def test_wide_positive_ranges_are_logarithmic_and_others_are_not() -> None:
    def chart(values: list[float]) -> Chart:
        line = run_line(History.from_series({"loss": values}), "loss")
        assert line is not None
        return Chart("c", "c", (line,))

    assert chart([1e-3, 1.0]).log
    assert not chart([1.0, 2.0]).log
    assert not chart([0.0, 1000.0]).log


def test_a_curve_breaks_where_nothing_is_finite() -> None:
    assert svg.path(np.array([0.0, 1, 2, 3]), np.array([1.0, np.nan, 2, 3])) == "M0 1h0M2 2L3 3"


def test_the_loss_that_is_not_finite_is_marked() -> None:
    made = History.from_series({"loss": [1.0, 1.0, float("inf"), float("inf"), 1.0], "loss.nonfinite": [0, 0, 1, 1, 0]})
    assert not_finite(made) == (Band("loss is not finite", 3, 4, "critical"),)
    assert not_finite(History.from_series({"loss": [1.0, 2.0], "loss.nonfinite": [0, 0]})) == ()


def test_a_band_outside_of_the_chart_draws_nothing_wider_than_the_chart() -> None:
    line = run_line(History.from_series({"loss": [1.0, 2.0, 3.0]}), "loss")
    assert line is not None
    drawn = svg.plot(Chart("c", "c", (line,), bands=(Band("b", 2, 900, "error"),)))
    assert 'x="500" y="0" width="500"' in drawn


def test_the_heat_map_puts_the_largest_value_in_the_brightest_shade_and_leaves_gaps_empty() -> None:
    nan = float("nan")
    made = History.from_series({"grad.norm": {"a": [1e-3, 1e-3, nan], "b": [1.0, nan, 1.0]}})
    found = svg.heat_map(made, "grad.norm", [1, 0])
    assert found is not None
    assert found.rows == (1, 0)
    assert found.levels[0, 0] == 253
    assert found.levels[1, 0] == 0
    assert found.levels[0, 1] == svg.MISSING
    assert found.levels[1, 2] == svg.MISSING


def test_the_heat_map_keeps_to_its_cells_however_many_layers_there_are() -> None:
    made = runs.history(60, 300, every=1)
    found = svg.heat_map(made, "grad.norm", range(300), cells=3000)
    assert found is not None
    assert found.levels.size <= 3000
    assert len(found.edges) == found.levels.shape[1] + 1


def test_the_picture_of_the_heat_map_is_a_png_with_its_size() -> None:
    data = base64.b64decode(svg.png(np.zeros((3, 7), np.uint8)).partition(",")[2])
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(data[16:20], "big") == 7
    assert int.from_bytes(data[20:24], "big") == 3


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (float("nan"), "–"), (float("inf"), "∞"), (12345.0, "12\u202f345"), (3e-4, "3e-4"), (0.0123, "0.012"), (2.917, "2.92"), (1e8, "1e8"), (-0.5, "-0.5"), (48, "48")],
)
def test_numbers_are_written_as_people_read_them(value: float, text: str) -> None:
    assert number(value) == text


def test_quantities_carry_their_unit() -> None:
    assert quantity(0.41, "fraction") == "41\u202f%"
    assert quantity(3 * 2**20, "bytes") == "3\u202fMiB"
    assert duration(0.0123) == "12.3\u202fms"
    assert duration(4000) == "1\u202fh 6\u202fmin"
    assert scientific(0.003) == "3e-3"
    assert scientific(0.1) == "0.1"


@pytest.mark.parametrize(("low", "high", "log"), [(0.0, 1.0, False), (1e-9, 1e3, True), (2.0, 3.0, True), (-5.0, 7.5, False), (5.0, 5.0, False)])
def test_axis_labels_lie_on_the_axis(low: float, high: float, log: bool) -> None:
    found = ticks(low, high, log)
    assert found
    assert all(low <= tick <= high for tick in found)
    assert len(found) <= 8


# -- colours ------------------------------------------------------------------------------------------------------


def palettes() -> list[dict[str, str]]:
    """Light theme, dark theme by preference, dark theme by choice."""
    style = html.asset("report.css")
    blocks = list(re.findall(r"\{([^{}]*--ground[^{}]*)\}", style))
    light = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[0]))
    return [light] + [{**light, **dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))} for block in blocks[1:3]]


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_has_a_contrast_of_four_and_a_half_in_both_themes() -> None:
    tones = ("critical", "error", "warning", "info", "ok", "none")
    pairs = [(text, ground) for text in ("ink", "soft", "accent") for ground in ("ground", "card", "faint")]
    pairs += [(tone, f"{tone}-ground") for tone in tones] + [("minus", "minus-ground"), ("plus", "plus-ground"), ("accent", "accent-ground")]
    for palette in palettes():
        for text, ground in pairs:
            assert contrast(palette[text], palette[ground]) >= 4.5, (text, ground)


def test_curves_have_a_contrast_of_three_and_both_dark_themes_are_the_same() -> None:
    light, preferred, chosen = palettes()
    assert preferred == chosen != light
    for palette in (light, preferred):
        for name in ("s0", "s1", "s2", "s3", "s4", "s5"):
            assert contrast(palette[name], palette["card"]) >= 3, name


# -- words --------------------------------------------------------------------------------------------------------


def test_a_limit_is_drawn_over_the_curve_that_it_limits_and_no_other() -> None:
    counted = Evidence("count(loop.stale_gradients > 0.5, 8)", None, 3.0, 3.0, ">=", "", (5, 6), (0.0, 1.0))
    limited = Evidence("grad.norm", None, 12.0, 10.0, ">", "1", (5, 6), (0.9, 12.0))
    assert 'class="limit"' not in reading(counted, 6).curve
    assert 'class="limit"' in reading(limited, 6).curve


def test_evidence_that_is_back_within_its_limit_tells_when_it_was_beyond() -> None:
    past = Evidence("update.ratio", None, 0.001, 0.3, ">", "1", (5, 6, 7), (0.4, 161.0, 0.001))
    assert telling(past) == ("161", "at step 6, now 0.001")
    assert telling(Evidence("update.ratio", None, 0.5, 0.3, ">", "1", (5, 6), (0.9, 0.5))) == ("0.5", "")
    assert telling(Evidence("grad.norm", None, 1.0, 1e-7, "<", "1", (5, 6), (1e-9, 1.0))) == ("1e-9", "at step 5, now 1")
    assert telling(Evidence("loss", None, 2.0)) == ("2", "")


def test_how_far_beyond_its_limit_is_told_only_of_what_is_beyond_it() -> None:
    assert factor(Evidence("loss", None, 3.1, 0.1, ">")) == "31 times"
    assert factor(Evidence("gradient", None, 0.1, 3.1, "<")) == "31 times smaller"
    assert factor(Evidence("loss", None, 0.1, 3.1, ">")) == ""
    assert factor(Evidence("loss", None, 1.1, 1.0, ">")) == ""


def test_a_message_starts_with_a_capital_unless_it_starts_with_a_name() -> None:
    def told(message: str, *targets: str) -> str:
        return sentence(Finding("r", "r", Severity.ERROR, "high", targets, 1, 2, message=message))

    assert told("updates are large") == "Updates are large"
    assert told("layer3.conv2: small gradients", "layer3.conv2") == "layer3.conv2: small gradients"
    assert told("head gets no gradient", "head.weight") == "head gets no gradient"


def test_facts_are_rows_and_groups_of_facts_are_one_row() -> None:
    facts = {"model": "net", "unseen": [], "seconds": 75.0, "overhead": 0.0123, "amp": False, "versions": {"torch": "2.6", "python": "3.12"}, "settings": {"sgd": {"lr": 3.0}}}
    assert list(flat(facts)) == [
        ("model", "net"), ("duration", "1\u202fmin 15\u202fs"), ("overhead", "1.23\u202f%"), ("amp", "no"),
        ("versions", "torch 2.6, python 3.12"), ("settings sgd", "lr 3"),
    ]  # fmt: skip


def test_diagnoses_are_spelled_as_people_write_them() -> None:
    assert [spelled(name) for name in ("learning-rate-too-high", "dead-relu", "nan-or-inf", "lr-schedule-misconfigured")] == [
        "Learning rate too high", "Dead ReLU", "NaN or infinity", "LR schedule misconfigured",
    ]  # fmt: skip


def test_the_doctors_share_is_that_of_all_steps_not_of_those_it_measured_in_parts() -> None:
    quarter = [0.01, float("nan"), float("nan"), float("nan")] * 5
    made = History.from_series({"step.time": [0.1] * 20, "step.doctor": quarter, "step.forward": [v * 2 for v in quarter]})
    assert overhead_share(runs.view(made, facts={})) == pytest.approx(0.025, rel=1e-4)
    assert overhead_share(runs.view(made, facts={"overhead": 0.02})) == 0.02


def test_a_sample_is_not_held_beyond_its_time_in_the_heat_map() -> None:
    nan = float("nan")
    made = History.from_series({"loss": [1.0] * 100, "grad.norm": {"a": [1.0, 1.0, 1.0, nan, 1.0] + [nan] * 95}})
    found = svg.heat_map(made, "grad.norm", [0])
    assert found is not None
    assert found.edges[-1] == 101
    assert found.levels[0, -1] == svg.MISSING


def test_names_in_the_icicle_have_a_contrast_of_four_and_a_half() -> None:
    for palette in palettes():
        for tone in ("t-data", "t-forward", "t-backward", "t-optimizer"):
            assert contrast(palette["on-strong"], palette[tone]) >= 4.5, tone
        for tone in ("faint", "t-loss", "t-other"):
            assert contrast(palette["on-pale"], palette[tone]) >= 4.5, tone


def test_zeros_lie_on_the_bottom_of_a_log_axis_where_a_chart_says_so() -> None:
    line = run_line(History.from_series({"grad.total_norm": [1.0, 1e-6, 0.0]}), "grad.total_norm")
    assert line is not None
    chart = Chart("c", "c", (line,), zeros=True)
    assert chart.log
    assert chart.has_zeros
    assert not Chart("c", "c", (line,)).log
    assert 'L1000 100"' in svg.plot(chart), "the last value"
    assert chart.data()["lines"][0]["mean"][-1] == 0.0, "what is read out is what was measured"
    assert chart.data()["floor"] == pytest.approx(chart.y_range[0], rel=1e-4)


def test_facts_with_a_table_of_their_own_are_not_told_twice() -> None:
    facts = {"places": {"backward": [{"file": "train.py", "line": 7, "code": "loss.backward()"}]}, "layer_shapes": {"fc": [[4, 8], [4, 2]]}, "not_examined": [{"rule": "r"}]}
    made = History.from_series({"loss": [1.0, 2.0]})
    section = next(s for s in SECTIONS if s.id == "measured").build(runs.view(made, facts=facts))
    assert section is not None
    assert section["facts"] == section["long_facts"] == []
    assert section["places"] == [("backward", "train.py:7", "loss.backward()")]
    assert section["shapes"] == [("fc", "4 x 8", "4 x 2")]


def test_what_never_changed_in_the_data_is_told_beside_the_table() -> None:
    made = History.from_series({"input.mean": [0.1, 0.2], "input.batch_size": [64, 64]})
    section = next(s for s in SECTIONS if s.id == "data").build(runs.view(made))
    assert section is not None
    assert [row.name for row in section["rows"]] == ["input.mean"]
    assert [(row.name, row.newest) for row in section["constant"]] == [("input.batch_size", "64")]
