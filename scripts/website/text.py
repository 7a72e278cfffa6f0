"""Plain text of rules and signals as Markdown: nothing in it is taken for markup but code and addresses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

_PIECES = re.compile(r"(?P<code>(?P<ticks>`+)[^`]+(?P=ticks))|(?P<address>https?://[^\s)>\]]*[^\s)>\].,;:])|(?P<plain>.[^`h]*|.)", re.DOTALL)
_SPECIAL = re.compile(r"([\\*_\[\]|#])")
_REFERENCE = re.compile(r"^(?P<title>.+?):?\s+(?P<address>https?://\S+)(?P<rest>.*)$", re.DOTALL)


def prose(text: str) -> str:
    """`text` as Markdown that reads the same; code in backticks stays code, addresses become links.

    >>> prose("E[g]^2 of `w_new` <dw>")
    'E\\\\[g\\\\]^2 of `w_new` &lt;dw&gt;'
    >>> prose("see https://example.org/a_b.")
    'see <https://example.org/a_b>.'
    """
    return "".join(_piece(match) for match in _PIECES.finditer(text.strip()))


def _piece(match: re.Match[str]) -> str:
    if match["code"] is not None:
        return match["code"]
    if match["address"] is not None:
        return f"<{match['address']}>"
    return _SPECIAL.sub(r"\\\1", match["plain"].replace("&", "&amp;")).replace("<", "&lt;").replace(">", "&gt;")


def reference(text: str) -> str:
    """A reference, ``authors year, title: URL (place)``, as a link with its title.

    >>> reference("Kingma & Ba 2015, Adam: https://arxiv.org/abs/1412.6980 (algorithm 1)")
    '[Kingma &amp; Ba 2015, Adam](https://arxiv.org/abs/1412.6980) (algorithm 1)'
    """
    found = _REFERENCE.match(text)
    if found is None:
        return prose(text)
    return f"[{prose(found['title'])}]({found['address']}){prose_after(found['rest'])}"


def prose_after(text: str) -> str:
    return f" {prose(text)}" if text.strip() else ""


def bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; empty where there are no rows."""
    lines = [_row(row) for row in rows]
    return "\n".join([_row(head), "|" + "---|" * len(head), *lines]) if lines else ""


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("\n", " ") for cell in cells) + " |"


def section(title: str, text: str, level: int = 2) -> Iterator[str]:
    """A heading and what stands under it; nothing where that is empty."""
    if text:
        yield f"{'#' * level} {title}"
        yield text


def folded(title: str, text: str) -> Iterator[str]:
    """`text` under a title that opens it; nothing where it is empty."""
    if text:
        indented = "\n".join(f"    {line}" if line else "" for line in text.split("\n"))
        yield f'??? note "{title}"\n\n{indented}'


def page(title: str, parts: Iterable[str], description: str = "") -> str:
    """A page: its title, what search engines say of it, and its parts."""
    plain = re.sub(r"[`*]", "", description).replace('"', "'").split("\n")[0]
    front = f'---\ndescription: "{plain}"\n---\n\n' if plain else ""
    return front + "\n\n".join([f"# {title}", *parts]) + "\n"
