"""How large the HTML report is, how long it takes to write, and how soon a browser shows it, for runs of several sizes.

Run: ``python benchmarks/report_size.py`` (from the repository's root). Limits: 1 MB for 10 000 steps of 60 layers,
2 MB and half a second to the first paint for 100 000 steps of 200 layers. The browser's figures are medians of five
visits in headless Chromium, left out where none is installed: the first contentful paint and the time until every chart
is alive, both by the page's own clock since the visit began, and the processor time of its main thread until then, which
other work on the machine hardly makes longer.
"""

from __future__ import annotations

import gzip
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nndoctor.reports import FORMATS, render_report
from nndoctor.reports.view import RunView
from tests.reports import report_runs as runs
from tests.reports.browser import Browser, chromium

SIZES = ((100, 10, 1), (10_000, 60, 8), (100_000, 200, 100))
VISITS = 5

PAINT = """
new Promise((done) => {
  const painted = () => performance.getEntriesByName("first-contentful-paint")[0];
  const drawn = () => performance.getEntriesByName("nndoctor-drawn")[0];
  const look = () => (painted() && drawn() ? done([painted().startTime, drawn().startTime]) : setTimeout(look, 20));
  look();
})
"""


class Visit(NamedTuple):
    """Milliseconds since the beginning of a visit, and processor time of the page's main thread."""

    painted: float
    drawn: float
    busy: float


def main() -> None:
    views = {(steps, layers): made(steps, layers, every) for steps, layers, every in SIZES}
    print(f"{'steps':>8} {'layers':>7} {'format':>7} {'kB':>8} {'kB zipped':>10} {'seconds':>8}")
    with tempfile.TemporaryDirectory() as folder:
        pages = {}
        for (steps, layers), view in views.items():
            render_report(view, "html")  # templates are compiled once per process; that is not the report's cost
            for name in FORMATS:
                begun = time.perf_counter()
                text = render_report(view, name).encode()
                seconds = time.perf_counter() - begun
                print(f"{steps:>8} {layers:>7} {name:>7} {len(text) / 1000:>8.0f} {len(gzip.compress(text)) / 1000:>10.0f} {seconds:>8.2f}")
                if name == "html":
                    pages[steps, layers] = Path(folder) / f"{steps}-{layers}.html"
                    pages[steps, layers].write_bytes(text)
        if chromium() is None:
            print("no Chromium is installed: the first paint was not measured")
            return
        print(f"\n{'steps':>8} {'layers':>7} {'first paint, ms':>16} {'charts alive, ms':>17} {'processor, ms':>14}")
        for (steps, layers), page in pages.items():
            seen = visits(page, Path(folder) / f"profile-{steps}")
            painted, drawn, busy = (statistics.median(column) for column in zip(*seen, strict=True))
            print(f"{steps:>8} {layers:>7} {painted:>16.0f} {drawn:>17.0f} {busy:>14.0f}")


def made(steps: int, layers: int, every: int) -> RunView:
    """An ill run of that size, as a report of its record shows it."""
    return runs.recorded(steps, layers, every)


def visits(page: Path, profile: Path) -> Sequence[Visit]:
    found = []
    with Browser(profile, patience=120) as browser:
        browser.size(1280, 900)
        for _ in range(VISITS + 1):
            browser.call("Performance.enable", timeDomain="threadTicks")
            browser.open(page)
            painted, drawn = browser.evaluate(PAINT)
            metrics = {item["name"]: item["value"] for item in browser.call("Performance.getMetrics")["metrics"]}
            found.append(Visit(painted, drawn, 1000 * metrics["TaskDuration"]))
            browser.call("Performance.disable")
    return found[1:]  # the first visit also warms the browser up


if __name__ == "__main__":
    main()
