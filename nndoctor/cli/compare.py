"""``nndoctor compare``: runs side by side, and where they part."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nndoctor.cli.complete import complete_run
from nndoctor.cli.diagnose import RulesOption, judged
from nndoctor.cli.output import SEVERITY_STYLE, UsageError, coloured, columns, plain, say, say_lines, say_raw
from nndoctor.cli.settings import run_root

if TYPE_CHECKING:
    from rich.text import Text

    from nndoctor.reports.compare import Comparison, Divergence

SUFFIXES = {".html": "html", ".htm": "html", ".json": "json", ".md": "md"}


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help="Two or more runs: folders, or parts of their names.", autocompletion=complete_run)],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Also write it as .html, .json or .md.")] = None,
    format: Annotated[Literal["text", "json", "md", "html"], typer.Option(help="How to answer.")] = "text",
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    rules: RulesOption = None,
) -> None:
    """Put runs side by side: findings, settings, where they part.

    The first run is what the others are held against. Times and memory are left out of the divergence.
    """
    if len(runs) < 2:
        raise UsageError("expected two runs or more: nndoctor compare RUN RUN (nndoctor ls lists them)")
    if out is not None and out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"-o {out}: expected a file that ends in .html, .json or .md")
    comparison = _compared(runs, rules)
    if out is not None:
        _write(comparison, out)
    if json or format != "text":
        from nndoctor.reports.compare_formats import RENDERERS

        say_raw(RENDERERS["json" if json else format](comparison))
        return
    say_lines(_lines(comparison))
    if out is not None:
        say(f"comparison: {out}")
    say(comparison.verdict)


def _compared(runs: Sequence[str], rules: list[str] | None) -> Comparison:
    from nndoctor.reports.compare import compare as side_by_side
    from nndoctor.reports.compare import unique

    found = [judged(run, rules, run_root()) for run in runs]
    folders = [folder for folder, _ in found]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError(f"the same run twice: {', '.join(folder.name for folder in folders)}; give more of the names")
    divergences = [_divergence(folders[0], folder) for folder in folders[1:]]
    return side_by_side([view for _, view in found], unique([folder.name for folder in folders]), divergences)


def _divergence(one: Path, other: Path) -> Divergence:
    from nndoctor.packaged import full_catalogue
    from nndoctor.record import RecordReader
    from nndoctor.reports.compare import diverge

    with RecordReader(one) as first, RecordReader(other) as second:
        catalogue = full_catalogue((*first.published, *second.published))
        frames = (first.frames(catalogue=catalogue), second.frames(catalogue=catalogue))
        return diverge(*frames, (first.targets, second.targets), catalogue)


def _write(comparison: Comparison, out: Path) -> None:
    from nndoctor.reports.compare_formats import RENDERERS

    if not out.parent.is_dir():
        raise UsageError(f"cannot write {str(out)!r}: there is no folder {str(out.parent)!r}; create it first")
    out.write_text(RENDERERS[SUFFIXES[out.suffix.lower()]](comparison), encoding="utf-8")


def _lines(comparison: Comparison) -> Iterator[Text | str]:
    from nndoctor.reports.compare_formats import curves, partings, told

    heads = ("", *comparison.names)
    rows: list[Sequence[str | Text]] = [heads, ("grade", *(f"{mark.letter}, {mark.word}" for mark in comparison.grades))]
    rows.append(("status", *(f"{view.status}, {view.diagnosis.steps} steps" for view in comparison.views)))
    rows += [(s.name, *s.values) for s in comparison.settings]
    for row in comparison.rows:
        cells = [plain(told(f), SEVERITY_STYLE[f.severity.label] if f is not None else "") for f in row.findings]
        rows.append((row.rule, *cells))
    yield from columns(rows)
    yield ""
    ascii = not (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    yield from curves(comparison, width=min(100, _width()), ascii=ascii, colour=coloured())
    yield from partings(comparison)


def _width() -> int:
    from shutil import get_terminal_size

    return get_terminal_size((100, 24)).columns
