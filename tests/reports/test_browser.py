"""The page in a real browser: silent console, no request, charts that work, names that are text, phone and print."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nndoctor.reports import write_report
from nndoctor.reports.compare import Divergence, compare
from nndoctor.reports.compare_formats import as_html
from tests.reports import report_runs as runs
from tests.reports.browser import Browser, chromium

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium is installed (looked for chromium, google-chrome)")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    views: dict[str, Any] = {
        "ill": runs.ill(600, 14),
        "hostile": runs.ill(200, 8, names=runs.HOSTILE),
        "healthy": runs.healthy(200, 6),
        "empty": runs.empty(),
        "one": runs.view(runs.history(1, 1)),
        "nan": runs.view(runs.history(60, 3, nan_from=30)),
        "many": runs.ill(40, 400),
        "long": runs.recorded(2000, 3),
    }
    return {name: write_report(view, folder / f"{name}.html") for name, view in views.items()}


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("comparison") / "compare.html"
    made = compare([runs.ill(200, 4), runs.healthy(200, 4)], ("first", "second"), (Divergence(None, None, 200),))
    page.write_text(as_html(made), encoding="utf-8")
    return page


@pytest.fixture(autouse=True)
def a_desktop_in_light(browser: Browser) -> None:
    browser.size(1280, 900)
    browser.prefer(prefers_color_scheme="light")


@pytest.mark.parametrize("name", ["ill", "hostile", "healthy", "empty", "one", "nan", "many", "long"])
def test_the_console_is_silent_and_nothing_is_requested(browser: Browser, pages: dict[str, Path], name: str) -> None:
    browser.open(pages[name])
    assert browser.evaluate("document.documentElement.dataset.charts") == "drawn"
    browser.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert browser.complaints() == []
    assert browser.requests() == []


def test_the_console_check_can_fail(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        "<!DOCTYPE html><html data-charts='drawn'><meta charset=utf-8><meta http-equiv=Content-Security-Policy content=\"script-src 'none'\">"
        "<script>1</script><img src=x.png>",
        encoding="utf-8",
    )
    browser.open(page)
    assert any("Content Security Policy" in line for line in browser.complaints())
    assert [address.rpartition("/")[2] for address in browser.requests()] == ["x.png"]


def test_scripts_put_live_charts_in_the_place_of_the_static_ones(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["ill"])
    assert browser.evaluate("document.querySelectorAll('figure.chart').length") == browser.evaluate("document.querySelectorAll('.u-wrap').length") > 5
    assert browser.evaluate("[...document.querySelectorAll('.static')].every((e) => e.hidden)")
    painted = "(() => { const c = document.querySelector('[data-heat] canvas'); return new Set(c.getContext('2d').getImageData(200, 0, 400, 60).data).size; })()"
    assert browser.evaluate(painted) > 20


def test_without_scripts_the_static_charts_and_everything_else_are_there(browser: Browser, pages: dict[str, Path]) -> None:
    try:
        browser.open(pages["ill"], scripts=False)
        document = browser.call("DOM.getDocument")["root"]["nodeId"]

        def size(selector: str) -> float:
            node = browser.call("DOM.querySelector", nodeId=document, selector=selector)["nodeId"]
            quad = browser.call("DOM.getBoxModel", nodeId=node)["model"]
            return float(quad["height"])

        assert size(".static .plot") > 100
        assert size(".heat-picture") > 50
        assert size("#causes") > 200
        with pytest.raises(RuntimeError):
            size("#theme")
    finally:
        browser.scripts(True)


def test_damaged_data_leaves_the_static_charts(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "damaged.html"
    page.write_text(pages["ill"].read_text(encoding="utf-8").replace('id="nndoctor-data">H4sI', 'id="nndoctor-data">XXXX'), encoding="utf-8")
    browser.open(page)
    assert browser.evaluate("document.documentElement.dataset.charts") == "static"
    assert browser.evaluate("document.querySelector('.static .plot').getBoundingClientRect().height") > 100


def test_hostile_names_are_text_and_run_nothing(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["hostile"])
    assert browser.evaluate("document.querySelectorAll('img:not([src^=\"data:\"]), svg[onload]').length") == 0
    names = browser.evaluate("[...document.querySelectorAll('#layers th code')].map((e) => e.textContent)")
    assert {"</script><img src=x onerror=alert(1)>", "blocks[/x]", "{{ 7*7 }}", "'\"><svg onload=alert(2)>", "safegnp.exe"} <= set(names)
    browser.evaluate("document.querySelector('[data-heat] canvas').dispatchEvent(new PointerEvent('pointermove', {bubbles: true}))")
    assert "onerror" in browser.evaluate("document.querySelector('[data-heat] .readout').textContent")
    assert not any(event.get("method") == "Page.javascriptDialogOpening" for event in browser.events)


@pytest.mark.parametrize("name", ["ill", "hostile", "empty", "many"])
def test_a_phone_needs_no_sideways_scrolling(browser: Browser, pages: dict[str, Path], name: str) -> None:
    browser.size(360, 740, phone=True)
    browser.open(pages[name])
    browser.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 360
    wide = "[...document.querySelectorAll('main *')].filter((e) => e.getBoundingClientRect().right > 361 && !e.closest('.scroll, .contents ol, svg, canvas, .u-wrap')).map((e) => e.className || e.tagName)"
    assert browser.evaluate(wide) == []


def test_one_zoom_moves_all_charts_of_the_timeline_and_zero_goes_back(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["ill"])
    pixels = "[...document.querySelectorAll('[data-group=run] .u-wrap canvas')].map((c) => c.toDataURL().length + c.toDataURL().slice(-400))"
    before = browser.evaluate(pixels)
    browser.evaluate("document.querySelector('[data-chart=loss] .live').focus()")
    browser.press("+")
    browser.painted()
    zoomed = browser.evaluate(pixels)
    assert sum(one != two for one, two in zip(before, zoomed, strict=True)) >= len(before) - 1
    browser.press("0")
    browser.painted()
    assert browser.evaluate(pixels) == before


RANGE = "document.querySelector('[data-range]').textContent"
TIMELINE = "[...document.querySelectorAll('#timeline [data-chart]')]"
READOUTS = f"{TIMELINE}.map((f) => f.querySelector('.readout').textContent)"


def over(chart: str) -> str:
    return f"[data-chart={chart}] .u-over"


def test_a_drag_zooms_all_charts_of_the_timeline_and_a_double_click_goes_back(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["ill"])
    assert browser.evaluate(RANGE) == "steps 1 to 600"
    browser.drag(browser.place(over("loss"), 0.25), browser.place(over("loss"), 0.5))
    browser.painted()
    first, last = (int(word) for word in browser.evaluate(RANGE).split()[1:4:2])
    assert abs(first - 151) <= 4
    assert abs(last - 300) <= 4
    shown = f"{TIMELINE}.map((f) => plots.get('run').find((p) => p.figure === f).u.scales.x.min)"
    assert {round(step) for step in browser.evaluate(shown)} <= {first - 1, first, first + 1}
    browser.click(browser.place(over("lr")), times=2)
    browser.painted()
    assert browser.evaluate(RANGE) == "steps 1 to 600"
    assert browser.evaluate("document.querySelector('[data-zoom=\"\"]').disabled")


def test_the_mouse_over_one_chart_reads_out_all_of_the_timeline(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["ill"])
    browser.mouse("Moved", browser.place(over("gradients"), 0.5))
    browser.painted()
    told = browser.evaluate(READOUTS)
    assert len(told) >= 4
    assert all(text.startswith("step ") for text in told)
    assert all(abs(int(text.split()[1].rstrip(":")) - 300) <= 16 for text in told)


def test_metrics_of_ones_own_are_drawn_and_move_with_the_timeline(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["ill"])
    drawn = "[...document.querySelectorAll('#own figure')].map((f) => [f.querySelector('b').textContent, !!f.querySelector('.u-wrap')])"
    assert browser.evaluate(drawn) == [["metric.alignment", True], ["metric.surprise", True]]
    assert "<of a batch>" in browser.evaluate("document.querySelector('#own').textContent")
    browser.mouse("Moved", browser.place(over("loss"), 0.5))
    browser.painted()
    told = browser.evaluate("[...document.querySelectorAll('#own .readout')].map((e) => e.textContent)")
    assert [abs(int(text.split()[1].rstrip(":")) - 300) <= 8 for text in told] == [True, True]
    browser.evaluate("zoomRun(100, 200)")
    browser.painted()
    assert browser.evaluate("plots.get('run').filter((p) => p.item.id.startsWith('own')).map((p) => Math.round(p.u.scales.x.max))") == [200, 200]


def test_the_buttons_of_a_root_cause_show_where_it_began(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["ill"])
    browser.evaluate("document.querySelector('[data-look]').click()")
    browser.painted()
    assert browser.evaluate(RANGE) == "steps 270 to 570 of 600"
    browser.evaluate("document.querySelector('[data-zoom=\"\"]').click()")
    browser.painted()
    assert browser.evaluate(RANGE) == "steps 1 to 600"
    browser.evaluate("document.querySelectorAll('[data-zoom]')[0].click()")
    browser.painted()
    assert browser.evaluate(RANGE) == "steps 270 to 570 of 600"


def test_every_sample_around_a_finding_is_drawn(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["long"])
    steps = browser.evaluate("plots.get('run').find((p) => p.item.id === 'loss').item.steps")
    around = [step for step in steps if 1250 <= step <= 1550]
    assert around == list(range(1250, 1551))
    assert len(steps) < 1000


def test_a_click_on_the_heat_map_opens_the_layer_and_escape_closes_it(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["ill"])
    drawer = "document.getElementById('layer-drawer')"
    browser.click(browser.place("[data-heat] canvas", 0.6, 0.5))
    assert browser.evaluate(f"{drawer}.open")
    named = browser.evaluate("document.getElementById('drawer-name').textContent")
    assert named == runs.targets(14).layers[7], "the row in the middle of fourteen"
    assert browser.evaluate(f"{drawer}.querySelectorAll('.u-wrap').length") >= 2
    browser.evaluate("document.querySelector('[data-drawer=on]').click()")
    assert browser.evaluate("document.getElementById('drawer-name').textContent") != named
    browser.press("Escape")
    assert not browser.evaluate(f"{drawer}.open")
    assert browser.complaints() == []


def test_a_name_in_the_layer_table_opens_its_findings(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["hostile"])
    browser.evaluate("document.querySelector('#layer-table tr[data-layer=\"0\"] .open-layer').click()")
    assert browser.evaluate("document.getElementById('drawer-name').textContent") == runs.HOSTILE[0]
    told = browser.evaluate("document.querySelector('[data-drawer=findings]').textContent")
    assert "Exploding gradients" in told
    assert "Gradient norms are 31 times their median." in told
    browser.press("Escape")


def test_a_click_on_the_icicle_zooms_in_and_the_button_goes_back(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["ill"])
    widths = "[...document.querySelectorAll('.icicle rect')].map((r) => r.getAttribute('width'))"
    whole = browser.evaluate(widths)
    browser.evaluate("[...document.querySelectorAll('.icicle .block')].find((b) => b.dataset.name === 'backward').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    told = browser.evaluate("document.querySelector('.icicle-bar .readout').textContent")
    assert told.startswith("backward: ")
    wide = "[...document.querySelectorAll('.icicle .block')].filter((b) => b.querySelector('rect').getAttribute('width') === '100%').map((b) => b.dataset.name)"
    assert browser.evaluate(wide) == ["step", "backward"]
    browser.evaluate("document.querySelector('[data-icicle-reset]').click()")
    assert browser.evaluate(widths) == pytest.approx(whole) or [float(w[:-1]) for w in browser.evaluate(widths)] == pytest.approx([float(w[:-1]) for w in whole], abs=1e-2)


def test_the_page_of_a_comparison_zooms_and_reads_out_too(browser: Browser, comparison: Path) -> None:
    browser.open(comparison)
    assert browser.evaluate("document.documentElement.dataset.charts") == "drawn"
    browser.drag(browser.place(over("'compare.loss'"), 0.25), browser.place(over("'compare.loss'"), 0.5))
    browser.mouse("Moved", browser.place(over("'compare.loss'"), 0.5))
    browser.painted()
    told = browser.evaluate("[...document.querySelectorAll('.readout')].map((e) => e.textContent)")
    assert all(text.startswith("step ") for text in told)
    assert "first" in told[0]
    assert "second" in told[0]
    assert browser.complaints() == []
    assert browser.requests() == []


def test_arrows_move_the_cursor_and_the_value_is_read_out(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["ill"])
    browser.evaluate("document.querySelector('[data-chart=loss] .live').focus()")
    browser.press("Home")
    browser.press("ArrowRight")
    browser.painted()
    told = browser.evaluate("document.querySelector('[data-chart=loss] .readout').textContent")
    assert told.startswith("step 3: loss "), "the second of the merged pairs of steps"
    assert browser.evaluate("document.querySelector('[data-chart=lr] .readout').textContent").startswith("step "), "cursors move together"


def test_the_heat_map_changes_with_its_signal_and_reads_out_by_keyboard(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["ill"])
    picture = "document.querySelector('[data-heat] canvas').toDataURL()"
    before = browser.evaluate(picture)
    browser.evaluate("document.querySelector('[data-signal=\"act.dead_fraction\"]').click()")
    assert browser.evaluate(picture) != before
    browser.evaluate("document.querySelector('[data-heat] canvas').focus()")
    browser.press("ArrowDown")
    assert "dead units" in browser.evaluate("document.querySelector('[data-heat] .readout').textContent")
    shown = "[...document.querySelectorAll('[data-picture]')].filter((e) => !e.hidden).map((e) => e.dataset.picture)"
    assert browser.evaluate(shown) == ["act.dead_fraction"]


def test_a_click_on_a_heading_sorts_the_layers_with_unmeasured_ones_last(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["ill"])
    browser.evaluate("[...document.querySelectorAll('#layer-table th button')].find((b) => b.textContent === 'dead units').click()")
    values = browser.evaluate(
        "(() => { const at = [...document.querySelectorAll('#layer-table thead th')].find((h) => h.textContent === 'dead units').cellIndex;"
        " return [...document.querySelectorAll('#layer-table tbody tr')].map((r) => r.cells[at].dataset.value); })()"
    )
    known = [float(value) for value in values if value]
    assert known == sorted(known, reverse=True)
    assert known
    assert values == [*(v for v in values if v), *(v for v in values if not v)]


def test_the_filter_hides_other_layers(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["hostile"])
    browser.evaluate("(() => { const box = document.querySelector('[data-filter]'); box.value = 'BLOCKS['; box.dispatchEvent(new Event('input')); })()")
    assert browser.evaluate("[...document.querySelectorAll('#layer-table tbody tr')].filter((r) => !r.hidden).length") == 1


def test_the_theme_follows_the_system_and_the_button_turns_it(browser: Browser, pages: dict[str, Path]) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    browser.open(pages["healthy"])
    light = browser.evaluate(ground)
    browser.prefer(prefers_color_scheme="dark")
    dark = browser.evaluate(ground)
    assert light != dark
    browser.evaluate("document.getElementById('theme').click()")
    assert browser.evaluate(ground) == light
    browser.evaluate("localStorage.clear()")


def test_print_is_light_and_shows_the_static_charts(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    browser.prefer(prefers_color_scheme="dark")
    browser.open(pages["ill"])
    browser.prefer(prefers_color_scheme="dark", media="print")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate("document.querySelector('.static').getBoundingClientRect().height") > 100
    assert browser.evaluate("getComputedStyle(document.querySelector('.live')).display") == "none"
    browser.print(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes()[:5] == b"%PDF-"


def test_every_control_can_be_reached_by_keyboard_and_has_a_name(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["ill"])
    nameless = (
        "[...document.querySelectorAll('button, a, input, summary, [tabindex]')].filter((e) => e.offsetParent"
        " && !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert browser.evaluate(nameless) == []
    assert browser.evaluate("[...document.querySelectorAll('figure.chart .live')].every((e) => e.tabIndex === 0)")
    assert browser.evaluate("document.querySelectorAll('h1').length") == 1


def test_a_surface_can_be_turned_by_mouse_and_keyboard_and_is_read_out(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["ill"])
    relief = "document.querySelector('.relief canvas')"
    picture = f"{relief}.toDataURL()"
    colours = f"new Set(new Uint32Array({relief}.getContext('2d').getImageData(0, 0, {relief}.width, {relief}.height).data.buffer)).size"
    assert browser.evaluate(colours) > 100
    before = browser.evaluate(picture)
    browser.evaluate(f"{relief}.scrollIntoView({{block: 'center'}})")
    browser.drag(browser.place(".relief canvas", 0.5, 0.5), browser.place(".relief canvas", 0.7, 0.5))
    turned = browser.evaluate(picture)
    assert turned != before
    browser.evaluate(f"{relief}.focus()")
    browser.press("0")
    assert browser.evaluate(picture) == before
    browser.press("ArrowUp")
    assert browser.evaluate(picture) not in (before, turned)
    browser.press("0")
    browser.mouse("Moved", browser.place(".relief canvas", 0.5, 0.6))
    told = browser.evaluate("document.querySelector('.relief .readout').textContent")
    assert told.startswith("loss 0.1"), told
    assert browser.evaluate("getComputedStyle(document.querySelector('.relief-static')).display") == "none"
    assert browser.complaints() == []
