"""A checkup as a table for the terminal: what was found first, then every examination, what was not made last."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from nndoctor.checkup_results import Checkup, Examination
from nndoctor.findings import describe_fix
from nndoctor.reports.text_safety import clean, to_ascii

MARKS = {"passed": ("✓", "+"), "warning": ("!", "!"), "failed": ("✗", "x"), "not examined": ("–", "-")}
STYLES = {"passed": "green", "warning": "yellow", "failed": "bold red", "not examined": "dim"}


def checkup_table(checkup: Checkup, *, ascii: bool = False) -> RenderableType:
    """The table of `checkup` with its verdict below, for any rich console."""

    def text(words: object, style: str = "") -> Text:
        shown = clean(words)
        return Text(to_ascii(shown) if ascii else shown, style=style)

    head = " · ".join(f"{name} {value}" for name, value in checkup.facts.items())
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(width=1)
    table.add_column(no_wrap=True, max_width=34, overflow="ellipsis" if not ascii else "crop")
    table.add_column(ratio=1)
    for examination in checkup.examinations:
        if examination.verdict == "not examined":
            continue
        mark = Text(MARKS[examination.verdict][ascii], STYLES[examination.verdict])
        table.add_row(mark, text(examination.name), text(examination.message))
        for remark in _remarks(examination):
            table.add_row("", "", text(remark, "bold" if examination.verdict == "failed" else ""))
    for reason, names in _not_made(checkup).items():
        mark = Text(MARKS["not examined"][ascii], "dim")
        first = names[0] if len(names) == 1 else f"{len(names)} not made"
        table.add_row(mark, text(first, "dim"), text(reason if len(names) == 1 else f"{', '.join(names)}: {reason}", "dim"))
    return Group(
        text(f"nndoctor checkup · {head}" if head else "nndoctor checkup", "bold"),
        Padding(table, (0, 0, 0, 1)),
        text(checkup.verdict, "green" if not checkup.failures and not checkup.warnings else STYLES["failed" if checkup.failures else "warning"]),
    )


def _not_made(checkup: Checkup) -> dict[str, list[str]]:
    """Names of the examinations that were not made, by the reason."""
    found: dict[str, list[str]] = {}
    for examination in checkup.examinations:
        if examination.verdict == "not examined":
            found.setdefault(examination.message, []).append(examination.name)
    return found


def _remarks(examination: Examination) -> Iterator[str]:
    """The diagnosis and the fix of what was found."""
    if examination.verdict not in ("failed", "warning"):
        return
    named = f"{examination.diagnosis}: " if examination.diagnosis else ""
    if examination.fix is not None:
        change = describe_fix(examination.fix)
        title = examination.fix.title
        yield f"→ {named}{title}" + (f" ({change})" if change != title else "")
    elif named:
        yield f"→ {named.removesuffix(': ')}"


def render(checkup: Checkup, *, width: int = 120) -> str:
    """The table as plain text of `width` columns, without colours."""
    console = Console(width=width, color_system=None, force_terminal=False, highlight=False, markup=False, emoji=False)
    with console.capture() as capture:
        console.print(checkup_table(checkup))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"
