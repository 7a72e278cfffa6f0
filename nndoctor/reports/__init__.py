"""From a diagnosis to something a person reads.

Each format is one module with ``render(view) -> str``; `write_report` picks it by the file's suffix.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nndoctor.reports.view import RunView

FORMATS = {
    "html": "nndoctor.reports.html",
    "json": "nndoctor.reports.json_report",
    "md": "nndoctor.reports.markdown",
    "txt": "nndoctor.reports.text",
    "sarif": "nndoctor.reports.sarif",
    "junit": "nndoctor.reports.junit",
    "github": "nndoctor.reports.github",
}
"""Format to the module that renders it; loaded when used, for templates take time to import."""

ALIASES = {"htm": "html", "markdown": "md", "text": "txt", "xml": "junit"}


class ReportError(Exception):
    """A report could not be written: what was expected, what came, what to do."""


def render_report(view: RunView, format: str) -> str:
    """The report in `format` (html, json, md, txt, sarif, junit, github). Raises ReportError for any other."""
    name = ALIASES.get(format.lower(), format.lower())
    if name not in FORMATS:
        raise ReportError(f"unknown report format {format!r}; expected one of {', '.join(FORMATS)}")
    text: str = import_module(FORMATS[name]).render(view)
    return text


def write_report(view: RunView, path: str | Path, format: str | None = None) -> Path:
    """Write the report of `view` to `path`, whole or not at all, and return the path.

    Args:
        format: html, json, md, txt, sarif, junit or github; by default the suffix of `path` says it.

    Raises:
        ReportError: the folder does not exist, the path is a folder, the suffix says no format, or the disk refused.
    """
    path = Path(path)
    check_target(path, format)
    text = render_report(view, format or path.suffix.lstrip("."))
    try:
        _replace(path, text)
    except OSError as error:
        raise ReportError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    return path


def check_target(path: Path, format: str | None = None) -> None:
    """Raises ReportError where a report could not be written to `path`, so that it is known before an hour of training."""
    if path.is_dir():
        raise ReportError(f"cannot write {str(path)!r}: it is a folder; name a file in it, such as report.html")
    suffix = path.suffix.lstrip(".")
    if format is None and ALIASES.get(suffix.lower(), suffix.lower()) not in FORMATS:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise ReportError(f"cannot tell the format of {str(path)!r} from its suffix; expected {known}, or name the format")
    if not path.parent.is_dir():
        raise ReportError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}; create it first")
    if not os.access(path.parent, os.W_OK):
        raise ReportError(f"cannot write {str(path)!r}: the folder {str(path.parent)!r} is not writable; name another one")


def _replace(path: Path, text: str) -> None:
    """Write beside `path`, then take its place: a reader never sees half a report."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
