"""``nndoctor config show``: every setting, its value, and where it comes from."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nndoctor.cli.output import columns, count, say, say_json, say_lines
from nndoctor.cli.settings import SETTINGS, load_settings

app = typer.Typer(help="Show the settings in force.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _config() -> None:
    """Show the settings in force."""


@app.command("show")
def show(json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Show every setting, its value and where it comes from.

    A command's own options come before all of them.
    """
    values = load_settings()
    if json:
        say_json({name: {"value": value.value, "origin": value.origin} for name, value in values.items()})
        return
    rows = [
        (setting.name, _shown(values[setting.name].value), values[setting.name].origin, setting.help)
        for setting in SETTINGS
    ]
    say_lines(columns([("setting", "value", "from", "what it is for"), *rows]))
    changed = sum(value.origin != "default" for value in values.values())
    say()
    say(f"{count(len(values), 'setting')}: {changed} set, {len(values) - changed} by default.")


def _shown(value: Any) -> str:
    if value is None:
        return "by budget"
    return ", ".join(value) if isinstance(value, tuple) else str(value)
