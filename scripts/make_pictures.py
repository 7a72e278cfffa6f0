"""Redraws the pictures of the README and of the report's page from real runs, in docs/images.

Trains sick networks of the zoo with the doctor attached, draws the panel as it stood when the first run ended, and takes
screenshots of their reports in headless Chromium, in use: zoomed, with a layer opened, dark, on a phone, two runs compared.
Run by ``make pictures``.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import nndoctor
from nndoctor.history import History
from nndoctor.packaged import full_catalogue
from nndoctor.record import RecordReader
from nndoctor.reporting import view_run
from nndoctor.reports import write_report
from nndoctor.reports.compare import compare, diverge
from nndoctor.reports.compare_formats import as_html
from nndoctor.reports.panel import panel_state, render_panel
from nndoctor.reports.view import BeforeAfter
from nndoctor.zoo.case import case_named, with_steps
from tests.reports.browser import Browser, chromium

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
CASE = "learning-rate-too-high"
DEEP_CASE = "learning-rate-too-high-transformer"
STEPS = 800
COLUMNS = 96
DESKTOP = (1280, 900)
PHONE = (390, 844)


def main() -> None:
    if chromium() is None:
        sys.exit("no browser for the screenshots: expected chromium or google-chrome on the PATH")
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        doctor, log = train(home / "sick", CASE, "sick")
        print(doctor.diagnosis().verdict)
        draw_panel(doctor, log, IMAGES / "panel.svg")
        train(home / "cured", CASE, "cured")
        print(train(home / "deep", DEEP_CASE, "sick")[0].diagnosis().verdict)
        cured = view_run(home / "cured")
        report = write_report(view_run(home / "sick", None, BeforeAfter(cured.history, cured.diagnosis, "lr=0.01")), home / "report.html")
        deep = write_report(view_run(home / "deep"), home / "deep.html")
        (home / "compare.html").write_text(compared([home / "sick", home / "cured"], ("lr 0.7", "lr 0.01")), encoding="utf-8")
        with Browser(home / "browser", patience=120) as browser:
            picture_report(browser, report)
            picture_layers(browser, deep)
            picture_comparison(browser, home / "compare.html")
    for picture in sorted(IMAGES.glob("*.*")):
        print(f"{picture}: {picture.stat().st_size / 1024:.0f} KiB")


def picture_report(browser: Browser, report: Path) -> None:
    """The top of the report, its timeline around the root cause in the dark, and the top on a phone."""
    shown(browser, report, (DESKTOP[0], 1500))
    save(browser, "report.png")
    shown(browser, report, DESKTOP, theme="dark")
    browser.evaluate("document.querySelector('[data-look]').click()")
    browser.evaluate("document.getElementById('timeline').scrollIntoView({behavior: 'instant'})")
    browser.mouse("Moved", inside(browser, "[data-chart=gradients] .u-over", 0.6))
    save(browser, "report-timeline.png")
    shown(browser, report, PHONE, phone=True)
    save(browser, "report-phone.png")


def picture_layers(browser: Browser, report: Path) -> None:
    """The heat map with a layer opened from it, and the icicle with the backward pass at full width."""
    shown(browser, report, DESKTOP)
    browser.evaluate("document.getElementById('heatmap').scrollIntoView({behavior: 'instant'})")
    browser.click(inside(browser, "[data-heat] canvas", 0.4, 0.3))
    browser.evaluate("Promise.all(document.getElementById('layer-drawer').getAnimations().map((each) => each.finished))")
    save(browser, "report-layers.png")
    browser.press("Escape")
    shown(browser, report, (DESKTOP[0], 700))
    browser.evaluate("document.getElementById('time').scrollIntoView({behavior: 'instant'})")
    browser.mouse("Moved", inside(browser, ".icicle .block:nth-child(5) rect", 0.5))
    save(browser, "report-time.png")


def picture_comparison(browser: Browser, page: Path) -> None:
    shown(browser, page, (DESKTOP[0], 1100))
    save(browser, "compare.png")


def shown(browser: Browser, page: Path, size: tuple[int, int], theme: str = "light", phone: bool = False) -> None:
    browser.size(*size, phone=phone)
    browser.prefer(prefers_color_scheme=theme)
    browser.open(page)
    if complaints := browser.complaints():
        sys.exit(f"{page.name} complains: {complaints}")


def inside(browser: Browser, selector: str, x: float, y: float = 0.5) -> tuple[float, float]:
    """A point of an element where it is now."""
    left, top, width, height = browser.evaluate(
        f"(() => {{ const r = document.querySelector({selector!r}).getBoundingClientRect(); return [r.left, r.top, r.width, r.height]; }})()"
    )
    return left + x * width, top + y * height


def save(browser: Browser, name: str) -> None:
    browser.painted()
    raw = io.BytesIO(browser.screenshot(whole=False))
    Image.open(raw).convert("RGB").quantize(128).save(IMAGES / name, optimize=True)  # a page of flat colours: a third of the size


def compared(folders: Sequence[Path], names: Sequence[str]) -> str:
    catalogue = full_catalogue()
    with RecordReader(folders[0]) as one, RecordReader(folders[1]) as other:
        frames = (one.frames(catalogue=catalogue), other.frames(catalogue=catalogue))
        divergence = diverge(*frames, (one.targets, other.targets), catalogue)
    return as_html(compare([view_run(folder) for folder in folders], names, (divergence,)))


def train(run: Path, case: str, variant: str) -> tuple[nndoctor.Doctor, list[str]]:
    """The closed doctor of a run, and the lines that the script printed meanwhile."""
    attached: list[nndoctor.Doctor] = []

    def attach(model: Any, optimizer: Any, loss_fn: Any = None, *, loader: Any = None) -> nndoctor.Doctor:
        attached.append(nndoctor.wrap(model, optimizer, loss_fn, loader=loader, ui="off", run_dir=run, name=case))
        return attached[0]

    losses = with_steps(case_named(case).train(variant), STEPS if case == CASE else None)(0, attach).losses
    attached[0].close()
    every = max(1, len(losses) // 4)
    return attached[0], [f"step {step:4d}  loss {losses[step - 1]:.3f}" for step in range(every, len(losses) + 1, every)]


def draw_panel(doctor: nndoctor.Doctor, log: list[str], path: Path) -> None:
    reader = RecordReader(doctor.run_dir)
    history = History(reader.targets)
    times = []
    for frame in reader.frames():
        history.append(frame)
        times.append(frame.time)
    speed = (len(times) - 1) / (times[-1] - times[0])
    overhead = doctor.facts.get("overhead")
    state = panel_state(history, doctor.diagnosis(), name=CASE, planned_steps=len(times), steps_per_second=speed, overhead=overhead)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in ("$ python train.py", *log):
        console.print(line, highlight=False, markup=False)
    console.print(render_panel(state, COLUMNS, 8))
    console.save_svg(str(path), title="python train.py")


if __name__ == "__main__":
    main()
