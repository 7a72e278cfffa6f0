"""``nndoctor run -- train.py args``: attach to an unmodified script and pass its exit code through."""

from __future__ import annotations

import json
import os
import re
import runpy
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nndoctor import ranks

if TYPE_CHECKING:
    from nndoctor.checkup_results import Checkup
    from nndoctor.doctor import Doctor
    from nndoctor.subscribers import Subscriber

USAGE_ERROR = 2


@dataclass(frozen=True)
class RunOptions:
    """How ``nndoctor run`` attaches; as the arguments of :func:`nndoctor.wrap`."""

    rules: tuple[str, ...] = ("core",)
    ui: str = "auto"
    budget: float = 0.01
    cadence: int | None = None
    eager_every: int | None = None
    time_every_step: bool = False
    run_dir: Path | None = None
    name: str | None = None
    report: Path | None = None
    json: Path | None = None
    context: Mapping[str, bool] = field(default_factory=dict)
    checkup: CheckupOptions | None = None
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckupOptions:
    """What ``--checkup`` does at the first backward: the table, a JSON file, and whether the script goes on."""

    only: bool = False
    json: Path | None = None
    seconds: float = 10.0


def run_script(argv: Sequence[str], options: RunOptions) -> int:
    """Run ``script.py args`` or ``-m module args`` with the doctor attached.

    The script's own stdout stays its own: what the doctor says goes to stderr.

    Returns:
        The script's exit code; 2 if there is no such script.
    """
    arguments = [a for i, a in enumerate(argv) if not (i == 0 and a == "--")]
    problem = _problem(arguments)
    if problem:
        print(f"nndoctor run: {problem}", file=sys.stderr)
        return USAGE_ERROR
    if os.environ.get("NNDOCTOR", "").strip().lower() in {"0", "off", "false", "no"}:
        return _execute(arguments)
    rank = ranks.rank()
    options = _of_rank(options, rank)
    if options.ui != "off" and rank == 0 and sys.stderr.isatty():  # torch alone takes seconds
        print(f"nndoctor: starting {_name(arguments)}; the panel comes with its first step", file=sys.stderr, flush=True)
    from nndoctor.attach import AutoAttach
    from nndoctor.reports import check_target
    from nndoctor.rules import load_rulesets

    # Mistakes are told before the script starts, not an hour later.
    load_rulesets(options.rules)
    if options.report is not None:
        check_target(options.report)
    for path in (options.json, options.checkup.json if options.checkup is not None else None):
        if path is not None:
            check_target(path, "json")
    subscribers = _subscribers(options.metrics)
    attach = AutoAttach(
        rules=options.rules,
        ui=options.ui,
        budget=options.budget,
        cadence=options.cadence,
        eager_every=options.eager_every,
        time_every_step=options.time_every_step,
        run_dir=options.run_dir,
        name=options.name or _name(arguments),
        context=options.context,
        said=partial(_tell, rank),
        examined=None if options.checkup is None else partial(show_checkup, options=options.checkup),
        seconds=10.0 if options.checkup is None else options.checkup.seconds,
        subscribers=subscribers,
    )
    attach.install()
    code = 1
    try:
        code = _execute(arguments)
    except CheckupDone as done:
        return done.exit_code
    finally:
        attach.finish()
        if attach.doctor is not None or options.checkup is None or not options.checkup.only:
            _say_verdict(attach, options, rank, crashed=code != 0)
    if options.checkup is not None and options.checkup.only:
        print("nndoctor: nothing was examined: no backward() was seen that a checkup could be made at", file=sys.stderr)
        return code or USAGE_ERROR
    return code


class CheckupDone(BaseException):
    """Ends the script after ``--checkup-only``; no ``except Exception`` of the script's catches it."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("the checkup is done")
        self.exit_code = exit_code


def show_checkup(checkup: Checkup, options: CheckupOptions) -> None:
    """Print the table to stderr, write the JSON, and end the script where nothing else was asked for.

    Raises:
        CheckupDone: with ``only``.
    """
    from rich.console import Console

    from nndoctor.reports.checkup_table import checkup_table

    console = Console(file=sys.stderr, highlight=False, markup=False, emoji=False)
    console.print(checkup_table(checkup, ascii=not console.encoding.lower().startswith("utf")))
    if options.json is not None:
        from nndoctor.reports.json_report import finite

        try:
            options.json.write_text(json.dumps(finite(checkup.to_dict()), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            print(f"nndoctor: cannot write {options.json}: {error.strerror or error}", file=sys.stderr)
    if options.only:
        raise CheckupDone(checkup.exit_code)


def _problem(arguments: Sequence[str]) -> str | None:
    if not arguments:
        return "expected a script, got nothing; try: nndoctor run -- train.py --epochs 3"
    if arguments[0] == "-m":
        return None if len(arguments) > 1 else "expected a module name after -m"
    if Path(arguments[0]).is_dir():
        return f"{arguments[0]!r} is a folder; expected a script in it, or a module: nndoctor run -m package.module"
    if not Path(arguments[0]).is_file():
        return f"no such script: {arguments[0]!r} (in {os.getcwd()}){_meant(arguments)}"
    return None


def _meant(arguments: Sequence[str]) -> str:
    """What to write instead of a script that there is not, where it can be guessed."""
    if re.fullmatch(r"python[0-9.]*", arguments[0]) and len(arguments) > 1:
        return f"; leave python out: nndoctor run -- {' '.join(arguments[1:])}"
    given = Path(arguments[0])
    there = [path.name for path in given.parent.glob("*.py")] if given.parent.is_dir() else []
    close = get_close_matches(given.name, there, n=1) or [name for name in there if name == f"{given.name}.py"]
    return f"; did you mean {given.with_name(close[0])}?" if close else ""


def _subscribers(metrics: Sequence[str]) -> Sequence[Subscriber]:
    """What ``--metric`` asks for. Raises UsageError with all mistakes."""
    if not metrics:
        return ()
    from nndoctor.cli.output import UsageError
    from nndoctor.metrics.names import parsed_all

    try:
        return parsed_all(metrics)
    except ValueError as error:
        raise UsageError("\n".join(f"--metric {problem}" for problem in str(error).splitlines())) from error


def _name(arguments: Sequence[str]) -> str:
    return arguments[1] if arguments[0] == "-m" else Path(arguments[0]).stem


def _execute(arguments: Sequence[str]) -> int:
    """Run the script as ``python`` would: its own argv, its folder first on the path, its traceback."""
    saved_argv, saved_path = sys.argv, list(sys.path)
    module = arguments[0] == "-m"
    sys.argv = list(arguments[1:] if module else arguments)
    sys.path[0] = os.getcwd() if module else str(Path(arguments[0]).resolve().parent)
    try:
        if module:
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("nndoctor: interrupted", file=sys.stderr)
        return 130
    except CheckupDone:
        raise
    except BaseException as error:
        _print_traceback(error)
        return 1
    finally:
        sys.argv, sys.path[:] = saved_argv, saved_path
    return 0


def _print_traceback(error: BaseException) -> None:
    """The traceback from the script's first frame on, as plain python would have shown it."""
    trace = error.__traceback__
    while trace is not None and (
        trace.tb_frame.f_code.co_filename == __file__ or "runpy" in trace.tb_frame.f_code.co_filename
    ):
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace)


def _of_rank(options: RunOptions, rank: int) -> RunOptions:
    """The files that were asked for are the first process's; the doctor gives each a folder of its own."""
    if rank == 0:
        return options
    return replace(
        options,
        report=None,
        json=None,
        checkup=None if options.checkup is None else replace(options.checkup, json=None),
    )


def _tell(rank: int, text: str) -> None:
    print(f"nndoctor: {text}" if rank == 0 else f"nndoctor: rank {rank}: {text}", file=sys.stderr)


def _say_verdict(attach: object, options: RunOptions, rank: int, *, crashed: bool) -> None:
    doctor = getattr(attach, "doctor", None)
    if doctor is None:
        why = "the script ended before its training began" if crashed else (
            "no backward() was seen of a module that a torch.optim optimizer trains"
        )
        _tell(rank, f"nothing was diagnosed: {why}")
        return
    if rank == 0:
        _tell(rank, f"run recorded in {doctor.run_dir} (nndoctor report {doctor.run_dir.name})")
    doctor.close("crashed" if crashed else "finished")
    _write_outputs(doctor, options)
    if rank > 0:
        _tell(rank, f"{doctor.diagnosis().verdict} [{doctor.run_dir}]")
    elif not doctor.verdict_shown:
        print(doctor.diagnosis().verdict, file=sys.stderr)


def _write_outputs(doctor: Doctor, options: RunOptions) -> None:
    """The report and the JSON that were asked for. What cannot be written is said; the script's exit code stays its own."""
    from nndoctor.reports import ReportError

    try:
        if options.report is not None:
            print(f"nndoctor: report written to {doctor.report(options.report)}", file=sys.stderr)
        if options.json is not None:
            from nndoctor.cli.diagnose import as_dict
            from nndoctor.reporting import view_run
            from nndoctor.reports.json_report import finite

            data = finite(as_dict(doctor.run_dir, view_run(doctor.run_dir)))
            options.json.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    except (ReportError, OSError) as error:
        print(f"nndoctor: {error}", file=sys.stderr)
