"""What the benchmarks share for telling: on which machine, and a table between two marks of a page."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine() -> str:
    """Processor, cores and versions, in words."""
    import torch

    return f"{platform.machine()}, {os.cpu_count()} cores, one thread, Python {platform.python_version()}, torch {torch.__version__}"


def put_between(document: Path, mark: str, body: str) -> None:
    """Replace what stands between ``<!-- mark: begin -->`` and ``<!-- mark: end -->``. Raises SystemExit without these."""
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    head, found_begin, rest = document.read_text(encoding="utf-8").partition(begin)
    _, found_end, tail = rest.partition(end)
    if not (found_begin and found_end):
        raise SystemExit(f"{document}: expected the marks {begin} and {end} around the table")
    document.write_text(f"{head}{begin}\n{body}\n{end}{tail}", encoding="utf-8")
