"""Where the built-in rulesets lie, and what they are called; it imports nothing, so that it costs nothing to ask."""

from __future__ import annotations

from pathlib import Path

SHARED = "ruleset.yaml"
"""The file of a folder ruleset that holds what its files share."""


def rulesets_folder() -> Path:
    """Where the built-in rulesets lie: beside the package in a checkout, inside it once installed."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_rulesets"
    return installed if installed.is_dir() else package.parent / "rulesets"


def built_in_rulesets() -> tuple[str, ...]:
    """The names of the rulesets that come with nndoctor; ``core`` is the one that is on by default."""
    folder = rulesets_folder()
    return tuple(sorted(p.stem for p in folder.glob("*") if p.is_dir() or p.suffix == ".yaml"))
