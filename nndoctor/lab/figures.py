"""Figures by matplotlib, an optional extra, written as PNG, SVG or PDF; no window and no global state."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any


class FiguresUnavailable(Exception):
    """matplotlib is not installed; the text says what to do."""


def new_figure(width: float = 7.0, height: float = 4.5) -> Any:
    """An empty ``matplotlib.figure.Figure`` (inches) that belongs to no window.

    Raises:
        FiguresUnavailable: matplotlib is not installed.
    """
    try:
        return import_module("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
    except ModuleNotFoundError as error:
        raise FiguresUnavailable("figures need matplotlib: pip install 'nndoctor[lab]'") from error


def save_figure(figure: Any, path: Path | str) -> Path:
    """Write `figure` as what the suffix of `path` says (.png, .svg, .pdf) and return the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path
