"""How the help of a command reads: plain words for the kinds of values, and no more brackets than have a meaning."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand

KINDS = {"str": "TEXT", "path": "PATH", "int": "N", "int range": "N", "float": "X", "float range": "X"}
"""What Typer shows for the type of a value, and what people write for it."""

KIND = re.compile(r" <(?P<kind>[^<>]+)>(?P<many>\.\.\.)?$")


class Command(TyperCommand):
    """A command whose usage reads ``ID [RUN]...`` and not ``{ID} [[RUN]...]...``, and whose arguments show no types."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words of the usage line, from ``[OPTIONS]`` on."""
        return [plain_usage(piece) for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes arguments and options, each by its :func:`plain_name`."""
        write = formatter.write_dl
        formatter.write_dl = lambda rows, *rest, **named: write([(plain_name(name), said) for name, said in rows], *rest, **named)
        super().format_options(ctx, formatter)
        formatter.write_dl = write


class RunCommand(Command):
    """``nndoctor run``, whose arguments are another program's."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The same with what the arguments are: a script and what it is called with."""
        return ["[OPTIONS]", "--", "SCRIPT", "[ARGS]..."]


def plain_usage(piece: str) -> str:
    """``{ID}`` as ``ID``, ``[[RUN]...]...`` as ``[RUN]...``, ``[[ID]]`` as ``[ID]``.

    >>> [plain_usage(piece) for piece in ("{ID}", "[[RUN]...]...", "[[ID]]", "[RUN]", "{RUN}...")]
    ['ID', '[RUN]...', '[ID]', '[RUN]', 'RUN...']
    """
    piece = piece.replace("{", "").replace("}", "")
    return re.sub(r"^\[(\[.*\](?:\.\.\.)?)\](?:\.\.\.)?$", r"\1", piece)


def plain_name(name: str) -> str:
    """An argument without its type, an option with the kind of value in a word.

    >>> [plain_name(name) for name in ("RUN <str>", "[RUN]... <list[str]>", "--steps <int range>", "--table <layers|experiment>", "-o, --out <path>")]
    ['RUN', 'RUN...', '--steps N', '--table layers|experiment', '-o, --out PATH']
    """
    if name.startswith("-"):
        return KIND.sub(lambda match: f" {KINDS.get(match['kind'], match['kind'])}{match['many'] or ''}", name)
    return re.sub(r"^\[(.*)\](\.\.\.)?$", r"\1\2", KIND.sub("", name))
