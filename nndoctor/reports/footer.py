"""The live panel in the last rows of the terminal that trains, below the output of the program, which stays untouched.

`FooterDisplay` owns a scroll region (see ``scroll_region``) on the terminal behind stderr or stdout. ``sys.stdout`` is
never replaced: whatever is printed, by tqdm, logging or C code, scrolls above the panel. A thread of its own draws at
most twice a second; the program pays for handing over a state, nothing more.

The region is given back when the display closes, when the interpreter exits (also by an exception), and on SIGINT and
SIGTERM where their handlers would end the process without that. Forked children never touch the terminal.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from io import StringIO
from types import FrameType
from typing import Any, Protocol, TextIO
from weakref import WeakMethod

from rich.console import Console
from rich.text import Text

from nndoctor.findings import Diagnosis
from nndoctor.reports.bars import say_above_bars
from nndoctor.reports.panel import MAX_ROWS, PanelState, panel_lines, panel_rows
from nndoctor.reports.panel_data import with_diagnosis
from nndoctor.reports.scroll_region import ScrollRegion, Size, reset_sequence
from nndoctor.reports.text_safety import clean, to_ascii

REDRAW_INTERVAL = 0.5
"""Seconds between two drawings."""

LOOK_INTERVAL = 0.2
"""Seconds between two looks at the size of the terminal, where no signal tells of its change."""

RENEW_INTERVAL = 10.0
"""Seconds after which everything is drawn again, in case the user cleared the screen or ran a full-screen program."""

RESIZE_PAUSE = 0.4
"""Seconds without a change of size before the panel comes back after one. While a window is dragged, tmux has the new
size long before it tells (it waits 250 ms between two notices); rows placed by the old one would hit the user's lines."""

CALM_DOWN = 5.0
"""Seconds for which fewer rows must suffice before the panel shrinks, so that it does not flutter."""


class Tty(Protocol):
    """The terminal as the footer needs it; tests put a fake here."""

    ascii: bool

    def size(self) -> Size: ...

    def write(self, text: str) -> bool:
        """True if all of it was written; never raises."""

    def ansi(self, lines: Sequence[Text], columns: int) -> list[str]:
        """`lines` with the colours that this terminal has."""

    def foreground(self) -> bool:
        """We may write: our process group is the terminal's foreground one."""


class StreamTty:
    """The terminal that a stream is attached to, written to below Python's buffers."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream  # keeps its descriptor open
        self._fd = stream.fileno()
        outside = Console(file=stream)  # decides on colours by NO_COLOR, FORCE_COLOR, TERM, COLORTERM
        self.ascii = not (outside.encoding or "").lower().startswith("utf")
        self._encoding = "ascii" if self.ascii else "utf-8"
        self._buffer = StringIO()
        self._console = Console(
            file=self._buffer,
            force_terminal=True,
            color_system=outside.color_system,  # type: ignore[arg-type]
            no_color=outside.no_color,
            legacy_windows=False,
            width=80,
            height=24,
        )

    def size(self) -> Size:
        try:
            columns, lines = os.get_terminal_size(self._fd)
        except OSError:
            return Size(0, 0)
        return Size(columns, lines)

    def write(self, text: str) -> bool:
        data = text.encode(self._encoding, "replace")
        try:
            return os.write(self._fd, data) == len(data)
        except OSError:  # the terminal is gone, or takes nothing now; training goes on
            return False

    def ansi(self, lines: Sequence[Text], columns: int) -> list[str]:
        self._buffer.seek(0)
        self._buffer.truncate()
        self._console.width = max(1, columns)
        for line in lines:
            self._console.print(line, soft_wrap=True, highlight=False)
        return self._buffer.getvalue().split("\n")[: len(lines)]

    def foreground(self) -> bool:
        try:
            return os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:
            return True  # not our controlling terminal: nobody's foreground


class FooterDisplay:
    """The panel below the program's output. Make it in the main thread; `show` may be called from any thread."""

    def __init__(self, tty: Tty, *, clock: Callable[[], float] = time.monotonic, background: bool = True) -> None:
        """
        Args:
            tty: where to draw.
            clock: seconds from any origin.
            background: draw from a thread of our own and give the terminal back by ourselves at exit and on signals;
                without it, call `tick`.
        """
        self._tty, self._clock = tty, clock
        self._pid = os.getpid()
        self._region = ScrollRegion()
        self._lock = threading.Lock()  # one writer at a time; a signal handler never waits for it for long
        self._state: PanelState | None = None
        self._drawn_state: PanelState | None = None
        self._size: Size | None = None  # as last seen; None: not seen yet
        self._draw_from = -1e9  # no drawing before this time
        self._drawn_at = self._renewed_at = self._big_at = -1e9
        self._asked_at = -1e9
        self._calming = False  # more rows are held than needed, until it is sure that they will not be
        self._closed = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._background = background
        self._signals = SignalChain(self._give_back, self._resized)
        if background:
            self._signals.install()
            atexit.register(self._at_exit)

    # -- what the caller uses

    def due(self) -> bool:
        """True where a state handed over now would be drawn soon; False: save the work of making one."""
        return not self._closed and self._clock() - self._asked_at >= 0.8 * REDRAW_INTERVAL

    def show(self, state: PanelState) -> None:
        """Have `state` drawn soon. Costs an assignment."""
        if self._closed or os.getpid() != self._pid:
            return
        self._state = state
        self._asked_at = self._clock()
        if self._background and self._thread is None:
            self._thread = threading.Thread(target=self._work, name="nndoctor-footer", daemon=True)
            self._thread.start()

    def close(self, final: Diagnosis | None) -> None:
        """Give the terminal back and leave the last state on it as ordinary lines. Safe to call twice."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=2.0)
        self._signals.remove()
        if self._background:
            atexit.unregister(self._at_exit)
        with _held(self._lock, timeout=2.0):
            size = self._tty.size()
            self._tty.write(self._region.release(size))
            words = self._last_words(final, size)
        if words:
            say_above_bars(words, self._tty.write)

    def tick(self) -> None:
        """Look at the clock and at the size of the terminal, and draw if it is time."""
        if self._closed or self._state is None:
            return
        now, size = self._clock(), self._tty.size()
        waiting = self._state is not self._drawn_state or self._calming or now - self._renewed_at >= RENEW_INTERVAL
        due = waiting and now >= self._draw_from and now - self._drawn_at >= REDRAW_INTERVAL
        if (size == self._size and not due) or not self._tty.foreground():
            return
        with _held(self._lock, timeout=1.0) as held:
            if not held or self._closed:
                return
            if self._size not in (None, size):
                self._step_aside(size)
            elif due:
                self._size = size
                self._draw(self._state, size, now)

    # -- drawing

    def _draw(self, state: PanelState, size: Size, now: float) -> None:
        rows = self._rows_for(state, size, now)
        lines = panel_lines(state, size.columns, rows, ascii=self._tty.ascii) if rows else []
        drawn = self._tty.ansi(lines, size.columns)
        drawn += [""] * (rows - len(lines))
        renew = now - self._renewed_at >= RENEW_INTERVAL
        text = self._region.frame(drawn, size, renew=renew)
        if renew:
            self._renewed_at = now
        if text and not self._tty.write(text):
            self._renewed_at = -1e9  # part of it may be missing: draw all of it next time
        self._drawn_state, self._drawn_at = state, now

    def _step_aside(self, size: Size) -> None:
        """The terminal has a new size: take the panel away, and bring it back when the size has settled."""
        self._tty.write(self._region.release(size))
        self._size, self._drawn_state = size, None
        self._draw_from = self._clock() + RESIZE_PAUSE

    def _rows_for(self, state: PanelState, size: Size, now: float) -> int:
        """As many rows as the state wants and the terminal can spare; fewer only after a while of calm."""
        room = rows_to_spare(size)
        wanted = min(room, panel_rows(state, size.columns)) if room else 0
        if wanted >= self._region.rows:
            self._big_at = now
        self._calming = wanted < self._region.rows and now - self._big_at < CALM_DOWN
        return min(room, self._region.rows) if self._calming else wanted

    def _last_words(self, final: Diagnosis | None, size: Size) -> str:
        """The last panel and the verdict as lines like anybody's; they stay in the scrollback."""
        state = self._state
        if state is not None and final is not None:
            state = with_diagnosis(state, final)
        verdict = final.verdict if final is not None else state.verdict if state is not None else ""
        if not verdict and state is None:
            return ""
        lines = panel_lines(state, size.columns, MAX_ROWS, ascii=self._tty.ascii, ended=True) if state is not None else []
        verdict = clean(verdict)
        words = Text(to_ascii(verdict) if self._tty.ascii else verdict)
        return "".join(line + "\r\n" for line in self._tty.ansi([*lines, words], size.columns))

    # -- thread, exit, signals

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                self.tick()
            except Exception as error:  # our failure never stops the training; said once, below the panel's place
                self._fail(error)
                return
            self._stop.wait(LOOK_INTERVAL)

    def _fail(self, error: Exception) -> None:
        self._closed = True
        with _held(self._lock, timeout=1.0):
            message = f"nndoctor: the panel stopped ({type(error).__name__}: {clean(error)}); training and recording go on"
            self._tty.write(self._region.release(self._tty.size()) + f"\r\n{message}\r\n")

    def _at_exit(self) -> None:
        self.close(None)

    def _give_back(self) -> None:
        """From a signal handler: the whole screen is the user's; the next tick takes the rows again if we live on."""
        if self._closed or os.getpid() != self._pid:
            return
        with _held(self._lock, timeout=0.2):
            self._tty.write(self._region.release(self._tty.size()))
            self._drawn_state = None

    def _resized(self) -> None:
        """From a signal handler, and so before the program prints again."""
        if self._closed or not self._region.rows or os.getpid() != self._pid:
            return
        with _held(self._lock, timeout=0) as held:
            size = self._tty.size()
            if held and size != self._size and self._tty.foreground():
                self._step_aside(size)


class SignalChain:
    """Calls us first and then whoever had SIGINT, SIGTERM and SIGWINCH; gives them back at the end.

    Only from the main thread, and only where the former handler can be called: otherwise they are left alone. So is
    Python's own handler of SIGINT: its KeyboardInterrupt either ends in an orderly exit or is none of our business.
    """

    def __init__(self, give_back: Callable[[], None], resized: Callable[[], None]) -> None:
        self._give_back, self._resized = give_back, resized
        self._former: dict[int, Any] = {}

    def install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        names = ("SIGINT", "SIGTERM", "SIGWINCH")
        for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
            former = signal.getsignal(number)
            resize = number == getattr(signal, "SIGWINCH", None)
            if former is None or former is signal.default_int_handler or (former is signal.SIG_IGN and not resize):
                continue
            with contextlib.suppress(ValueError, OSError):
                signal.signal(number, self._on_resize if resize else self._on_end)
                self._former[number] = former
                if resize:  # a system call of the program must not fail because a window changed
                    signal.siginterrupt(number, False)
        if self._former and hasattr(os, "register_at_fork"):
            forked = WeakMethod(self.remove)  # a fork hook cannot be taken back: it must not keep us alive
            os.register_at_fork(after_in_child=lambda: (chain := forked()) and chain())

    def remove(self) -> None:
        """Give the signals back to whom they belonged, except those that somebody else has taken since."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number, former in self._former.items():
            if signal.getsignal(number) in (self._on_end, self._on_resize):
                with contextlib.suppress(ValueError, OSError):
                    signal.signal(number, former)
        self._former.clear()

    def _on_end(self, number: int, frame: FrameType | None) -> None:
        self._give_back()
        former = self._former.get(number, signal.SIG_DFL)
        if callable(former):
            former(number, frame)
        elif former == signal.SIG_DFL:  # end as the process would have ended without us, with the same exit status
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _on_resize(self, number: int, frame: FrameType | None) -> None:
        self._resized()
        former = self._former.get(number)
        if callable(former):
            former(number, frame)


def rows_to_spare(size: Size) -> int:
    """Rows of a terminal that the panel may take: a third of it, at most eight; none of a very small one."""
    if size.columns < 20 or size.lines < 6:
        return 0
    return min(MAX_ROWS, size.lines // 3)


def reset_terminal(stream: TextIO | None = None) -> bool:
    """Give a terminal back whose footer was left behind by a killed process. False if there is no terminal."""
    for candidate in (stream,) if stream is not None else (sys.stderr, sys.stdout):
        if candidate is not None and candidate.isatty():
            candidate.flush()
            return StreamTty(candidate).write(reset_sequence())
    return False


class _held:
    """A lock held for the block if it could be had in time; the block runs either way and is told."""

    def __init__(self, lock: threading.Lock, timeout: float) -> None:
        self._lock, self._timeout = lock, timeout
        self._got = False

    def __enter__(self) -> bool:
        self._got = self._lock.acquire(timeout=self._timeout) if self._timeout else self._lock.acquire(blocking=False)
        return self._got

    def __exit__(self, *_: object) -> None:
        if self._got:
            self._lock.release()


