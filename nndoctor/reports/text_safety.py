"""Make a stranger's string safe to show: no control or bidi characters, no more room than it was given.

Layer names, run names and messages come from user code; a terminal obeys escape characters in them,
a browser reorders them, and a long one pushes the rest of the line out of sight. Every report passes
such strings through here first. HTML escaping is not done here: that is the template engine's business.
"""

from __future__ import annotations

import unicodedata

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

MARKS_PER_LETTER = 2
"""Combining marks kept on one letter; a hundred of them would climb over the neighbouring rows."""

_ASCII_SPELLINGS = str.maketrans(
    {"…": "~", "·": ".", "—": "-", "–": "-", "−": "-", "×": "x", "→": ">", "≥": ">=", "≤": "<=", "’": "'", "‘": "'"}
)


def clean(text: object) -> str:
    """`text` on one line, without control, bidi, zero-width and other invisible characters.

    Tabs and line breaks become one space, lone surrogates and unassigned characters a ``?``.

    >>> clean("conv1\\x1b[2J\\u202eevil")
    'conv1[2Jevil'
    """
    kept: list[str] = []
    marks = 0
    for character in str(text):
        category = unicodedata.category(character)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if category in ("Zl", "Zp", "Zs") or character in "\t\n\r\v\f":
            kept.append(" ")
        elif category in ("Cc", "Cf") or marks > MARKS_PER_LETTER:
            continue
        elif category in ("Cs", "Cn", "Co"):
            kept.append("?")
        else:
            kept.append(character)
    return "".join(kept)


def shorten(text: str, width: int, *, ascii: bool = False) -> str:
    """`text` in at most `width` terminal cells; what is too long loses its middle, for a name's both ends tell most.

    >>> shorten("encoder.layers.11.attention.q_proj", 20)
    'encoder.l…ion.q_proj'
    """
    if cell_len(text) <= width:
        return text
    mark = "~" if ascii else "…"
    if width <= 1:
        return mark[:width]
    room = width - 1
    head = _fitting(text, room // 2)
    tail = _fitting(text[::-1], room - cell_len(head))[::-1]
    return head + mark + tail


def to_ascii(text: str) -> str:
    """`text` in ASCII: letters lose their accents, what has no ASCII spelling becomes ``?``."""
    plain = unicodedata.normalize("NFKD", text.translate(_ASCII_SPELLINGS))
    return "".join(c for c in plain if not unicodedata.combining(c)).encode("ascii", "replace").decode()


def safe(text: object, width: int | None = None, *, ascii: bool = False) -> str:
    """`text` cleaned, spelled in ASCII where asked for, and shortened in the middle to `width` cells."""
    plain = clean(text)
    if ascii:
        plain = to_ascii(plain)
    return plain if width is None else shorten(plain, max(0, width), ascii=ascii)


def safe_text(text: object, width: int | None = None, style: str | Style = "", *, ascii: bool = False) -> Text:
    """:func:`safe` as a rich Text, which never reads markup in it."""
    return Text(safe(text, width, ascii=ascii), style=style, no_wrap=True)


def _fitting(text: str, width: int) -> str:
    """The longest beginning of `text` that takes at most `width` cells."""
    used = 0
    for index, character in enumerate(text):
        used += cell_len(character)
        if used > width:
            return text[:index]
    return text
