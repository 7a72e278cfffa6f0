"""Redraws the README's pictures from a real run: docs/images/panel.svg and docs/images/report.png.

Trains a sick network of the zoo with the doctor attached, draws the panel as it stood when the run ended, and takes a
screenshot of the top of the report in headless Chromium. Run by ``make pictures``.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

import nndoctor
from nndoctor.history import History
from nndoctor.record import RecordReader
from nndoctor.reports.panel import panel_state, render_panel
from nndoctor.zoo.case import case_named

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
CASE = "learning-rate-too-high"
COLUMNS = 96
WINDOW = (1280, 1500)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--force-color-profile=srgb",
)  # fmt: skip


def main() -> None:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"no browser for the screenshot: expected one of {', '.join(BROWSERS)} on the PATH")
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        doctor, log = train_sick(Path(folder) / "run")
        diagnosis = doctor.diagnosis()
        print(diagnosis.verdict)
        draw_panel(doctor, log, IMAGES / "panel.svg")
        report = doctor.report(Path(folder) / "report.html")
        take_screenshot(browser, report, IMAGES / "report.png", Path(folder))
    for picture in sorted(IMAGES.iterdir()):
        print(f"{picture}: {picture.stat().st_size / 1024:.0f} KiB")


def train_sick(run: Path) -> tuple[nndoctor.Doctor, list[str]]:
    """The closed doctor of a sick run, and the lines that the script printed meanwhile."""
    attached: list[nndoctor.Doctor] = []

    def attach(model: Any, optimizer: Any, loss_fn: Any = None, *, loader: Any = None) -> nndoctor.Doctor:
        attached.append(nndoctor.wrap(model, optimizer, loss_fn, loader=loader, ui="off", run_dir=run, name=CASE))
        return attached[0]

    losses = case_named(CASE).train("sick")(0, attach).losses
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


def take_screenshot(browser: str, report: Path, path: Path, profile: Path) -> None:
    raw = profile / "report.png"
    size = f"--window-size={WINDOW[0]},{WINDOW[1]}"
    command = [browser, *BROWSER_FLAGS, size, f"--user-data-dir={profile / 'browser'}", f"--screenshot={raw}", report.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if not raw.is_file():
        sys.exit(f"the browser made no screenshot (status {done.returncode}):\n{done.stderr[-2000:]}")
    Image.open(raw).convert("RGB").quantize(128).save(path, optimize=True)  # a page of flat colours: a third of the size


if __name__ == "__main__":
    main()
