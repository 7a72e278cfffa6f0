"""``nndoctor completion``: the script that teaches a shell to complete commands, options, runs and rules."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from nndoctor.cli.output import UsageError, say_raw

VARIABLE = "_NNDOCTOR_COMPLETE"
"""By what the scripts ask the command for candidates; Typer derives it from its name."""

SHELLS = ("bash", "zsh", "fish")
HOW = {
    "bash": 'eval "$(nndoctor completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(nndoctor completion zsh)"    # in ~/.zshrc, after compinit',
    "fish": "nndoctor completion fish | source    # in ~/.config/fish/config.fish",
}


def completion(
    shell: Annotated[str | None, typer.Argument(metavar="|".join(SHELLS), help="Which shell.  [default: the one that runs]")] = None,
) -> None:
    """Print the completion script of a shell.

    In bash: eval "$(nndoctor completion bash)". Runs and rules are completed as well.
    """
    wanted = shell or os.path.basename(os.environ.get("SHELL", ""))
    if wanted not in SHELLS:
        raise UsageError(f"expected {', '.join(SHELLS[:-1])} or {SHELLS[-1]}, got {wanted or 'no shell'!r}; for example: nndoctor completion bash")
    say_raw(f"# {HOW[wanted]}\n{_script(wanted)}\n")


def _script(shell: str) -> str:
    """What the application itself prints for a shell that asks it by its variable."""
    from contextlib import redirect_stdout
    from io import StringIO

    from nndoctor.cli.app import app_for

    printed = StringIO()
    os.environ[VARIABLE] = f"source_{shell}"
    try:
        with redirect_stdout(printed):
            app_for(())(args=[], prog_name="nndoctor")
    except SystemExit:
        pass
    finally:
        del os.environ[VARIABLE]
    return printed.getvalue().strip()
