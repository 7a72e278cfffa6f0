"""A page per command, from what the command line itself knows about its arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer.main

from nndoctor.cli.app import app_for
from nndoctor.cli.help import plain_name
from nndoctor.cli.main import __doc__ as conventions

from .text import bullets, page, prose, section, table

INTRODUCTION = """What `nndoctor COMMAND --help` says, for every command; [the command line](../command-line.md) shows each of them at work."""


def command_pages() -> Iterator[tuple[str, str]]:
    group: Any = typer.main.get_command(app_for([]))
    yield "commands/index.md", page("Every command", index(group), "Every command of nndoctor with all of its options.")
    for name, command in group.commands.items():
        yield f"commands/{name}.md", page(f"`nndoctor {name}`", described(f"nndoctor {name}", command, 2), first_line(command))


def index(group: Any) -> Iterator[str]:
    yield INTRODUCTION
    yield table(("command", "what it does"), ((f"[`{name}`]({name}.md)", prose(first_line(command))) for name, command in group.commands.items()))
    codes, rest = re.search(r"Exit codes: (.*?)\. (.*?)\n\n", conventions or "", flags=re.DOTALL).groups()  # type: ignore[union-attr]
    yield from section("Exit codes", bullets(prose(" ".join(code.split())) for code in codes.split(";")) + "\n\n" + prose(rest))


def first_line(command: Any) -> str:
    return str(command.help or "").strip().split("\n")[0]


def described(path: str, command: Any, level: int) -> Iterator[str]:
    yield "\n\n".join(prose(paragraph) for paragraph in str(command.help or "").split("\n\n") if paragraph.strip())
    subcommands = getattr(command, "commands", {})
    context = command.make_context(path, [], resilient_parsing=True)
    yield f"```console\n$ {usage(path, command, context)}\n```"
    yield from section("Arguments", parameters(command, context, "argument"), level)
    yield from section("Options", parameters(command, context, "option"), level)
    for name, below in subcommands.items():
        yield f"{'#' * level} `{path.partition(' ')[2]} {name}`"
        yield from described(f"{path} {name}", below, level + 1)


def usage(path: str, command: Any, context: Any) -> str:
    if getattr(command, "commands", None):
        return f"{path} COMMAND [ARGUMENTS]"
    return " ".join([path, *command.collect_usage_pieces(context)])


def parameters(command: Any, context: Any, kind: str) -> str:
    """The arguments or options of a command, as its help says them."""
    found = [parameter.get_help_record(context) for parameter in command.params if parameter.param_type_name == kind]
    rows = ((f"`{plain_name(written)}`".replace("|", "\\|"), prose(" ".join(said.split()))) for written, said in filter(None, found))
    return table((kind, "what it does"), rows)
