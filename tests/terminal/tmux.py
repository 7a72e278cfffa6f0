"""A real terminal for tests: a tmux server of our own, in which a shell runs and whose screen can be read."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from copy import copy
from pathlib import Path
from types import TracebackType

PATIENCE = 180.0
"""Seconds to wait for something to appear before it counts as missing."""


def available() -> bool:
    return shutil.which("tmux") is not None


class Tmux:
    """One terminal of `columns` by `lines` with bash in it, on a private socket in `folder`; `open` makes more of them."""

    def __init__(self, folder: Path, repository: Path, columns: int = 80, lines: int = 24) -> None:
        self._socket = str(folder / "tmux")
        environment = {
            **{key: value for key, value in os.environ.items() if key not in ("TMUX", "TMUX_PANE", "CI", "NO_COLOR")},
            "PYTHONPATH": str(repository),
            "LC_ALL": "C.UTF-8",
            "PYTHONUTF8": "1",
        }
        self._environment = environment
        self._session = "test"
        self._new_session(columns, lines, "bash --norc --noprofile -i")
        self.tmux("set-option", "-g", "history-limit", "20000")

    def open(self, name: str, columns: int, lines: int, command: str) -> Tmux:
        """Another terminal of the same server, in which `command` runs; it stays when the command has ended."""
        other = copy(self)
        other._session = name
        other._new_session(columns, lines, f"{command}; exec sleep 1000")
        return other

    def _new_session(self, columns: int, lines: int, command: str) -> None:
        self.tmux("new-session", "-d", "-x", str(columns), "-y", str(lines), "-s", self._session, command)

    def __enter__(self) -> Tmux:
        try:
            self.wait(lambda: self.screen().rstrip().endswith(("$", "#")), "a prompt")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(subprocess.SubprocessError):
            self.tmux("kill-server")

    def tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", self._socket, "-f", "/dev/null", *arguments]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=True, timeout=PATIENCE)
        return done.stdout

    def type(self, text: str) -> None:
        self.tmux("send-keys", "-t", self._session, "-l", text)

    def key(self, name: str) -> None:
        self.tmux("send-keys", "-t", self._session, name)

    def run(self, *command: str | Path) -> None:
        """Type a command at the prompt."""
        self.type(" ".join(shlex.quote(str(part)) for part in command))
        self.key("Enter")

    def resize(self, columns: int, lines: int) -> None:
        self.tmux("resize-window", "-t", self._session, "-x", str(columns), "-y", str(lines))

    def screen(self, *, colours: bool = False) -> str:
        """What is visible, with the escape sequences of its colours where asked for."""
        return self.tmux("capture-pane", "-p", *(["-e"] if colours else []), "-t", self._session)

    def forget(self) -> None:
        """An empty screen without a past."""
        self.tmux("send-keys", "-R", "-t", self._session)
        self.tmux("clear-history", "-t", self._session)

    def everything(self) -> list[str]:
        """Scrollback and screen; lines that the terminal has folded are joined again."""
        return self.tmux("capture-pane", "-p", "-J", "-S", "-", "-t", self._session).splitlines()

    def region(self) -> tuple[int, int]:
        """First and last row of the scroll region, and so whether a footer is there."""
        first, last = self.tmux("display", "-p", "-t", self._session, "#{scroll_region_upper} #{scroll_region_lower}").split()
        return int(first), int(last)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"waited {PATIENCE:.0f} s for {what}; the screen is\n{self.screen()}"
            time.sleep(0.02)

    def wait_for(self, text: str) -> None:
        self.wait(lambda: text in self.screen(), repr(text))
