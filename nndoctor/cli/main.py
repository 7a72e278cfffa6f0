"""The command ``nndoctor``: what every command has in common, from the arguments to the exit code.

Exit codes: 0 clean, or below ``--fail-on``; 1 findings at or above it; 2 a wrong argument, configuration, ruleset or
record; 3 a mistake of ours; 130 interrupted; 141 nobody reads the answer any more. ``run`` passes the script's own code
through. The answer goes to stdout and ends in a one-line verdict; progress and errors go to stderr.

Nothing heavy is imported before it is known what is wanted: ``--version`` imports nothing at all, and no command
imports torch but those that train (``run``, ``demo``), examine a model (``lab``) or look at it (``check``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

import nndoctor

INTERRUPTED = 130
NOBODY_READS = 141
"""What a shell reports for a process that the signal of a broken pipe has ended."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command in `arguments` (default: those of the process) and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments in (["--version"], ["-V"]):
        print(f"nndoctor {nndoctor.__version__}")
        return 0
    return guarded(lambda: _run_app(arguments))


def guarded(command: Callable[[], int]) -> int:
    """What `command` returns; an exception becomes one clear message on stderr and an exit code."""
    from nndoctor.cli.output import NobodyReads, UsageError, fail

    try:
        code = command()
        sys.stdout.flush()
        return code
    except UsageError as error:
        fail(str(error))
        return 2
    except (BrokenPipeError, NobodyReads):
        _forget_stdout()
        return NOBODY_READS
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        return _explained(error)


def _explained(error: Exception) -> int:
    """Tells `error` and returns the exit code: 2 where the user can do something about it, 3 where only we can."""
    from nndoctor.cli.output import fail
    from nndoctor.record import RecordError

    if isinstance(error, RecordError) or _is_of(error, "nndoctor.reports", "ReportError"):
        fail(str(error))
        return 2
    if _is_of(error, "nndoctor.rules.problems", "RulesetError"):
        count = len(getattr(error, "problems", ()))
        fail(str(error), prefix="")
        fail(f"{count} mistake{'s' * (count != 1)} in the rules")
        return 2
    if isinstance(error, OSError) and error.filename is not None:
        fail(f"{error.filename}: {error.strerror or error}")
        return 2
    if os.environ.get("NNDOCTOR_DEBUG", "") not in ("", "0"):
        import traceback

        traceback.print_exception(error)
    fail(
        f"a mistake of nndoctor itself: {type(error).__name__}: {error}\n"
        "Set NNDOCTOR_DEBUG=1 to see where, and please report it with that output."
    )
    return 3


def _is_of(error: Exception, module: str, name: str) -> bool:
    """Whether `error` is of a class that only a module which is perhaps not even imported knows."""
    known = getattr(sys.modules.get(module), name, None)
    return known is not None and isinstance(error, known)


def _run_app(arguments: Sequence[str]) -> int:
    from nndoctor.cli.app import app_for

    try:
        app_for(arguments)(args=list(arguments), prog_name="nndoctor")
    except SystemExit as stop:  # Typer ends with it in every case, usage errors included
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    return 0


def _forget_stdout() -> None:
    """Points stdout to nowhere, so that the interpreter does not complain about the pipe when it ends."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        return


if __name__ == "__main__":
    sys.exit(main())
