"""How far an examination is, with the time left; silent unless somebody wants to see it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO, TypeAlias

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called as ``progress("power iteration", done, total)``; a task is known by its text."""


def silent(task: str, done: int, total: int) -> None:
    """Shows nothing."""


@contextmanager
def progress_bars(stream: TextIO | None = None) -> Iterator[Progress]:
    """A bar with the time left for every task, on stderr; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(file=stream or sys.stderr)
    if not console.is_terminal:
        yield silent
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        known = {}

        def show(task: str, done: int, total: int) -> None:
            if task not in known:
                known[task] = bars.add_task(task, total=total)
            bars.update(known[task], completed=done, total=total)

        yield show
