"""How large the HTML report is and how long it takes to write, for runs of several sizes.

Run: ``python benchmarks/report_size.py`` (from the repository's root). Limits: 1 MB for 10 000 steps of 60 layers,
2 MB for 100 000 steps of 200 layers, 2 s to render.
"""

from __future__ import annotations

import gzip
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nndoctor.reports import FORMATS, render_report
from tests.reports import report_runs as runs

SIZES = ((100, 10, 1), (10_000, 60, 8), (100_000, 200, 100))


def main() -> None:
    print(f"{'steps':>8} {'layers':>7} {'format':>7} {'kB':>8} {'kB zipped':>10} {'seconds':>8}")
    for steps, layers, every in SIZES:
        first = int(steps * 0.7)
        made = runs.history(steps, layers, sick_from=first, every=every)
        view = runs.view(made, runs.findings(made, first))
        render_report(view, "html")  # templates are compiled once per process; that is not the report's cost
        for name in FORMATS:
            begun = time.perf_counter()
            text = render_report(view, name).encode()
            seconds = time.perf_counter() - begun
            print(f"{steps:>8} {layers:>7} {name:>7} {len(text) / 1000:>8.0f} {len(gzip.compress(text)) / 1000:>10.0f} {seconds:>8.2f}")


if __name__ == "__main__":
    main()
