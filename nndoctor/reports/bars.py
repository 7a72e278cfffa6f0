"""How to say something on a terminal on which the program's own progress bars stand: above them.

A bar of tqdm leaves the cursor in its line, and a live display of rich erases as many lines above the cursor as it has
rows: words in between would be glued to the one and erased by the other. Both know how to make room. They are asked for
it where the program uses them; neither is ever loaded by us.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

RICH_PROXY = "rich.file_proxy"
"""Where rich keeps the class that stands for ``sys.stdout`` and ``sys.stderr`` while it shows something live."""


def say_above_bars(text: str, write: Callable[[str], object]) -> None:
    """Have `text`, whole lines, stand above the bars of the program.

    Args:
        text: lines that end in a carriage return and a line feed, with colours.
        write: writes to the terminal itself; used where no live display of rich takes the words.
    """
    if said_by_rich(text, sys.stderr) or said_by_rich(text, sys.stdout):
        return
    with _bars_cleared() as cleared:
        write("\r" + text if cleared else "\r\n" + text)  # the line may be begun; with the bars taken off, it is empty


def said_by_rich(text: str, stream: object) -> bool:
    """Have the live display that stands for `stream` print the lines of `text` above itself; False: there is none."""
    if type(stream).__module__ != RICH_PROXY:
        return False
    # What is written to the proxy is broken into lines of the terminal's width; its console can print them whole, but
    # there is no public way to it.
    console: Any = getattr(stream, "_FileProxy__console", None)
    if console is None:
        return False
    from rich.text import Text

    with contextlib.suppress(Exception):  # whatever it is: the words are said all the same
        console.print(Text.from_ansi(text.replace("\r\n", "\n").removesuffix("\n")), soft_wrap=True, highlight=False)
        return True
    return False


def bars_are_open() -> bool:
    """tqdm is at work; asked of the module that the program has loaded, never loaded by us."""
    tqdm = getattr(sys.modules.get("tqdm.std"), "tqdm", None)
    return bool(len(getattr(tqdm, "_instances", ())))


@contextlib.contextmanager
def _bars_cleared() -> Iterator[bool]:
    """The terminal without the bars of tqdm for the block, and with them again afterwards; False: there are none."""
    if not bars_are_open():
        yield False
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(sys.modules["tqdm.std"].tqdm.external_write_mode(file=sys.stderr))
            sys.stdout.flush()
            sys.stderr.flush()
        except Exception:
            yield False
        else:
            yield True
