"""Showing a report in the user's browser, where there is one to be seen."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def has_desktop() -> bool:
    """Whether somebody sits before this terminal at a desktop of this very machine: not over SSH, in a pipe, or in CI."""
    if any(os.environ.get(name) for name in ("SSH_CONNECTION", "SSH_TTY", "CI")) or not sys.stdout.isatty():
        return False
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def shown(path: Path) -> bool:
    """Open the file at `path` in the browser; False if none could be started."""
    import webbrowser

    return webbrowser.open(path.resolve().as_uri())
