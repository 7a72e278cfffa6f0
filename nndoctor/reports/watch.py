"""``nndoctor watch``: a run in full screen, from any terminal that sees its folder, at no cost to the training process.

Everything comes from the run record, so it re-attaches for free, works over SSH, and goes on after the run has ended.
Pages and keys are in ``watch_views``, reading the record in ``follow``; here are the screen, the keyboard and the loop.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Protocol

from rich.console import Console
from rich.text import Text

from nndoctor.findings import RuleDocs
from nndoctor.record import RecordError, list_runs
from nndoctor.reports.follow import Follower
from nndoctor.reports.full_screen import FullScreen
from nndoctor.reports.panel import PanelState, panel_lines
from nndoctor.reports.scroll_region import Size
from nndoctor.reports.text_safety import clean, to_ascii
from nndoctor.reports.watch_views import Place, Scene, press, render

__all__ = ["Callbacks", "once", "parse_keys", "snapshot", "watch"]

RUNS_INTERVAL = 5.0
"""Seconds between two looks at the list of runs, while that page is open."""

ANNOUNCED_FOR = 6.0
"""Seconds for which the beginning of another run stands where the keys are."""

NEWER_INTERVAL = 1.0
"""Seconds between two looks for a run that began after the one shown has ended."""


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What the screen can ask for beyond the record.

    Args:
        report: writes the report of the run in a folder and returns its path; None: the key does nothing.
        explain: what is known about a rule: its documentation, plain text, or None.
        acknowledge: accepts a rule's finding of the run in a folder, for a reason.
    """

    report: Callable[[Path], Path] | None = None
    explain: Callable[[str], RuleDocs | str | None] | None = None
    acknowledge: Callable[[Path, str, str], object] | None = None


class Keyboard(Protocol):
    """Keys as they are pressed; tests put a fake here."""

    def read(self, timeout: float, text: bool = False) -> list[str]:
        """The keys pressed since the last call, with `text` every character as it is; waits at most `timeout` seconds."""


def snapshot(folder: Path) -> PanelState:
    """The panel's content for the run in `folder`, as far as its record goes.

    Raises:
        RecordError: there is no run record in `folder`.
    """
    follower = Follower(folder)
    try:
        return follower.look(patience=None)
    finally:
        follower.close()


def once(folder: Path, as_json: bool = False, *, width: int = 100, ascii: bool = False) -> str:
    """One picture of the run in `folder` in plain text, or its content as JSON; for scripts and pipes.

    Raises:
        RecordError: there is no run record in `folder`.
    """
    state = snapshot(folder)
    if as_json:
        return json.dumps(state.to_dict(), indent=2)
    verdict = clean(state.verdict)
    lines = [line.plain.rstrip() for line in panel_lines(state, width, 8, ascii=ascii)]
    return "\n".join([*lines, to_ascii(verdict) if ascii else verdict])


def watch(
    folder: Path,
    *,
    refresh: float = 0.5,
    callbacks: Callbacks | None = None,
    console: Console | None = None,
    keyboard: Keyboard | None = None,
    newest: bool = False,
) -> int:
    """Show the run in `folder` until q is pressed; afterwards its verdict stays on the terminal. Returns 0.

    Where stdin or stdout is no terminal, or one that moves no cursor, one plain picture is printed instead.

    Args:
        refresh: seconds between two looks at the record.
        callbacks: what writes reports and explains rules.
        console, keyboard: the terminal, by default that of the process.
        newest: go on to the next run beside it that begins after this one has ended.

    Raises:
        RecordError: there is no run record in `folder`.
    """
    console = console or Console()
    if keyboard is None and (console.is_dumb_terminal or not (console.is_terminal and _is_terminal(sys.stdin))):
        console.print(Text(once(folder, ascii=_is_ascii(console))), soft_wrap=True)
        return 0
    viewer = Viewer(folder, callbacks or Callbacks(), _is_ascii(console), newest=newest)
    try:
        while True:
            with contextlib.ExitStack() as stack:
                keys = keyboard or stack.enter_context(_cbreak_keyboard())
                stack.enter_context(_orderly_end())
                screen = stack.enter_context(FullScreen(console))
                done = _loop(viewer, keys, screen, console, refresh)
            if done:
                break
            os.kill(os.getpid(), signal.SIGTSTP)  # the terminal is as it was; fg goes on from here
    except KeyboardInterrupt:
        pass
    finally:
        viewer.close()
    console.print(Text(clean(viewer.scene.state.verdict)), soft_wrap=True)
    return 0


def _loop(viewer: Viewer, keys: Keyboard, screen: FullScreen, console: Console, refresh: float) -> bool:
    """Draw when the record, the reader's place or the size of the terminal may have changed. False: to be suspended."""
    next_look = 0.0
    drawn_size = Size(0, 0)
    while True:
        size = Size(console.size.width, console.size.height)
        changed = size != drawn_size
        if time.monotonic() >= next_look:
            viewer.look()
            next_look = time.monotonic() + (0.0 if viewer.scene.behind else refresh)
            changed = True
        if changed:
            screen.draw(viewer.lines(*size), size)
            drawn_size = size
        wait = max(0.0, min(0.2, next_look - time.monotonic()))
        for key in keys.read(wait, text=viewer.place.reason is not None):
            if key == "ctrl-z":
                return False
            if key == "ctrl-l":
                screen.forget()
            elif not viewer.press(key):
                return True
            drawn_size = Size(0, 0)


class Viewer:
    """A run, and the reader in front of it.

    With `newest` it is the newest run of its folder that is shown: the next one that begins takes the place of one that
    has ended, unless another was chosen from the list.
    """

    def __init__(self, folder: Path, callbacks: Callbacks, ascii: bool = False, *, newest: bool = False) -> None:
        self.callbacks, self.ascii, self.newest = callbacks, ascii, newest
        self.place = Place()
        self._follower = Follower(folder)
        self._runs_read_at = self._newer_sought_at = -1e9
        self._known = _names(folder.parent) if newest else frozenset()
        self._announced = ""
        self._announced_at = -1e9
        self._problems_told = 0
        self.scene = Scene(PanelState(folder.name), self._follower.history)
        self.look()

    def close(self) -> None:
        self._follower.close()

    def look(self) -> None:
        """Read what is new. A record that cannot be read any more leaves the last picture and a note."""
        if self.place.note and self.place.note == self._announced and time.monotonic() - self._announced_at > ANNOUNCED_FOR:
            self.place = replace(self.place, note="")
        try:
            state = self._follower.look()
        except (RecordError, OSError) as error:
            self.place = replace(self.place, note=f"the record cannot be read: {error}")
            return
        if not self._follower.folder.exists():
            self.place = replace(self.place, note=f"{self._follower.folder} is gone; this is what was read of it")
        problems = self._follower.problems
        if len(problems) > self._problems_told:
            self.place = replace(self.place, note=problems[-1])
        self._problems_told = len(problems)
        self.scene = replace(
            self.scene,
            state=state,
            history=self._follower.history,
            findings=self._follower.findings,
            behind=self._follower.behind,
        )
        if self.place.page == "runs" and time.monotonic() - self._runs_read_at >= RUNS_INTERVAL:
            self._runs_read_at = time.monotonic()
            self.scene = replace(self.scene, runs=tuple(list_runs(self._follower.folder.parent)))
        if self.newest and state.status != "running" and time.monotonic() - self._newer_sought_at >= NEWER_INTERVAL:
            self._newer_sought_at = time.monotonic()
            self._go_on()

    def _go_on(self) -> None:
        """Show the run that began after the one shown; a reader who is on another page is told of it instead."""
        shown = self._follower.folder
        if _names(shown.parent) <= self._known:
            return
        runs = [run for run in list_runs(shown.parent) if run.problem is None]
        self._known = self._known | {run.folder.name for run in runs}
        newer = runs[0].folder if runs else shown
        if newer == shown:
            return
        if self.place.page == "overview" and self.place.reason is None:
            self._open(newer)
            self._announce(f"{newer.name} has begun")
        else:
            self._announce(f"{newer.name} has begun: u lists the runs")

    def _announce(self, note: str) -> None:
        """Say what nobody asked for: for a while, then the keys are back."""
        self._announced, self._announced_at = note, time.monotonic()
        self.place = replace(self.place, note=note)

    def press(self, key: str) -> bool:
        """Do what a key asks for; False to leave."""
        before = self.place
        self.place, action = press(before, key, findings=len(self.scene.findings), runs=len(self.scene.runs))
        if action == "quit":
            return False
        if action == "report":
            self._write_report()
        elif action == "acknowledge":
            self._acknowledge(before.reason or "")
        elif action == "open":
            self.newest = False
            self._open(self.scene.runs[min(before.run, len(self.scene.runs) - 1)].folder)
        if self.place.page == "runs" and before.page != "runs":
            self._runs_read_at = -1e9
            self.look()
        if self.place.page == "explain":
            self._explain()
        return True

    def lines(self, width: int, height: int) -> list[Text]:
        return render(self.scene, self.place, width, height, ascii=self.ascii)

    def _write_report(self) -> None:
        if self.callbacks.report is None:
            self.place = replace(self.place, note="reports cannot be written from here: use nndoctor report")
            return
        try:
            note = f"report written: {self.callbacks.report(self._follower.folder)}"
        except Exception as error:  # whatever it is, the screen goes on and says so
            note = f"the report could not be written: {type(error).__name__}: {error}"
        self.place = replace(self.place, note=note)

    def _acknowledge(self, reason: str) -> None:
        self.place = replace(self.place, reason=None)
        finding = self.scene.findings[min(self.place.finding, len(self.scene.findings) - 1)]
        if self.callbacks.acknowledge is None:
            self.place = replace(self.place, note="findings cannot be acknowledged from here: use nndoctor ack")
            return
        try:
            self.callbacks.acknowledge(self._follower.folder, finding.rule, reason.strip())
            self.look()
            position = next(i for i, f in enumerate(self.scene.findings) if f.rule == finding.rule)  # what is accepted sinks
            self.place = replace(self.place, finding=position)
            note = f"acknowledged: {finding.rule}; nndoctor ack --remove takes it back"
        except Exception as error:
            note = f"it could not be acknowledged: {type(error).__name__}: {error}"
        self.place = replace(self.place, note=note)

    def _explain(self) -> None:
        docs: RuleDocs | str | None = None
        if self.callbacks.explain is not None and self.scene.findings:
            selected = min(self.place.finding, len(self.scene.findings) - 1)
            try:
                docs = self.callbacks.explain(self.scene.findings[selected].rule)
            except Exception as error:
                docs = f"The documentation could not be read: {type(error).__name__}: {error}"
        self.scene = replace(self.scene, docs=docs)

    def _open(self, folder: Path) -> None:
        try:
            other = Follower(folder)
        except (RecordError, OSError) as error:
            self.place = replace(self.place, note=f"cannot open {folder.name}: {error}")
            return
        self._follower.close()
        self._follower, self._problems_told = other, 0
        self.look()


def _names(root: Path) -> frozenset[str]:
    """What lies in the folder of the runs; far cheaper than to read them."""
    try:
        return frozenset(os.listdir(root))
    except OSError:
        return frozenset()


# ------------------------------------------------------------------------------------------ keyboard

_SEQUENCES = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[5~": "page-up",
    b"\x1b[6~": "page-down",
    b"\x1b": "esc",
    b"\r": "enter",
    b"\n": "enter",
    b"\x03": "ctrl-c",
    b"\x04": "q",
    b"\x0c": "ctrl-l",
    b"\x1a": "ctrl-z",
    b" ": "page-down",
}


def parse_keys(data: bytes, text: bool = False) -> list[str]:
    """The names of the keys behind the bytes that a terminal sends; sequences of keys without a name are skipped.

    With `text`, for a line that is typed, every printable character is a key of its own.
    """
    if text:
        return _parse_text(data)
    keys: list[str] = []
    while data:
        for sequence, name in sorted(_SEQUENCES.items(), key=lambda item: -len(item[0])):
            if data.startswith(sequence) and not (sequence == b"\x1b" and data[1:2] in (b"[", b"O")):
                keys.append(name)
                data = data[len(sequence) :]
                break
        else:
            if data.startswith((b"\x1b[", b"\x1bO")):
                data = data[2:].lstrip(b"0123456789;")[1:]
                continue
            if data[:1].isalnum():
                keys.append(data[:1].decode().lower())
            data = data[1:]
    return keys


def _parse_text(data: bytes) -> list[str]:
    named = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\b": "backspace", "\x03": "ctrl-c", "\x1b": "esc"}
    typed = re.sub(r"\x1b[\[O][0-9;]*[ -~]", "", data.decode("utf-8", "ignore"))  # arrows and kin move nothing here
    return [named.get(character, character) for character in typed if character in named or character.isprintable()]


class _TerminalKeyboard:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, timeout: float, text: bool = False) -> list[str]:
        ready, _, _ = select.select([self._descriptor], [], [], timeout)
        if not ready:
            return []
        data = os.read(self._descriptor, 256)
        return parse_keys(data, text) if data else ["ctrl-c"]  # nothing to read from a ready terminal: it is gone


@contextlib.contextmanager
def _cbreak_keyboard() -> Iterator[Keyboard]:
    """The keyboard key by key, without echo; as it was afterwards."""
    try:
        import termios
        import tty
    except ImportError:  # no terminals of this kind here: watch without keys, end by Ctrl-C
        yield _NoKeyboard()
        return
    descriptor = sys.stdin.fileno()
    former = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        modes = termios.tcgetattr(descriptor)
        modes[6][termios.VSUSP] = b"\0"  # Ctrl-Z comes as a key, so that the screen is given back before we are stopped
        termios.tcsetattr(descriptor, termios.TCSADRAIN, modes)
        yield _TerminalKeyboard(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, former)


class _NoKeyboard:
    def read(self, timeout: float, text: bool = False) -> list[str]:
        time.sleep(timeout)
        return []


@contextlib.contextmanager
def _orderly_end() -> Iterator[None]:
    """SIGTERM and SIGHUP end the loop like Ctrl-C, so that the screen is given back."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    former = {}
    for name in ("SIGTERM", "SIGHUP"):
        with contextlib.suppress(ValueError, OSError, AttributeError):
            former[getattr(signal, name)] = signal.signal(getattr(signal, name), end)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _is_terminal(stream: object) -> bool:
    isatty = getattr(stream, "isatty", None)
    return bool(isatty and isatty())


def _is_ascii(console: Console) -> bool:
    return not (console.encoding or "").lower().startswith("utf")
