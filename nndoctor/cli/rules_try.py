"""``nndoctor rules try``: an expression of the rule language over a recorded run, drawn in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nndoctor.cli.complete import complete_run
from nndoctor.cli.output import UsageError, coloured, columns, count, plain, say, say_json, say_lines
from nndoctor.cli.settings import run_root

if TYPE_CHECKING:
    from rich.text import Text

    from nndoctor.history import Whole
    from nndoctor.reports.plot import Trace
    from nndoctor.rules.expression import Expression
    from nndoctor.rules.trial import Course
    from nndoctor.signals import Catalogue


def try_expression(
    expression: Annotated[str, typer.Argument(metavar="EXPRESSION", help="As in a rule's when, in quotes.")],
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="A run folder, or any part of its name.  [default: the newest run]", autocompletion=complete_run),
    ] = None,
    rules: Annotated[
        list[str] | None,
        typer.Option("--rules", metavar="RULESET", help="Whose records it may use.  [default: the rules of the run]"),
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="NAME", help="Only at this layer, parameter or group; * and ? are allowed.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Plot an expression over a recorded run, and where it holds.

    Every signal of the catalogue and every record of the run's rulesets may stand in it.
    """
    from nndoctor.packaged import full_catalogue
    from nndoctor.record import RecordReader, find_run
    from nndoctor.rules import load_rulesets
    from nndoctor.rules.expression import ExpressionError
    from nndoctor.rules.trial import course

    folder = find_run(run, run_root())
    with RecordReader(folder) as reader:
        catalogue = full_catalogue(reader.published)
        ruleset = load_rulesets(tuple(rules or reader.facts.rules or ("core",)), catalogue)
        try:
            found = course(expression, reader.frames(catalogue=catalogue), reader.targets, catalogue, ruleset.records)
        except ExpressionError as error:
            raise UsageError(mistake(expression, error)) from error
        missing = () if found.known else _unmeasured(expression, reader, catalogue, ruleset.records)
    chosen = _chosen(found, at)
    if json:
        say_json(_as_dict(found, chosen, folder, missing))
        return
    say_lines(_drawing(found, chosen))
    say()
    say_lines(_where(found))
    say(_verdict(found, folder, missing))


def mistake(text: str, error: Any) -> str:
    """A mistake in an expression, the place in it underlined."""
    pointer = " " * error.offset + "^" * min(error.length, max(1, len(text) - error.offset))
    return f"{error.message}\n  {text}\n  {pointer}" + (f"\n  help: {error.help}" if error.help else "")


def _unmeasured(
    text: str, reader: Any, catalogue: Catalogue, records: Any
) -> tuple[str, ...]:
    """The signals of an expression that the run never measured."""
    from nndoctor.rules.expression import Names, parse

    expression: Expression = parse(text, Names(catalogue, records))
    measured: set[str] = set()
    for frame in reader.frames():
        measured.update(frame.values)
    return tuple(name for name in expression.signals() if name not in measured)


def _chosen(found: Course, at: str | None) -> list[int]:
    """The columns to draw; all where no name is asked for."""
    from fnmatch import fnmatchcase

    if at is None:
        return list(range(len(found.targets)))
    if not found.targets:
        raise UsageError("--at: the expression has one value for the run, no targets to choose from")
    chosen = [index for index, name in enumerate(found.targets) if fnmatchcase(name, at)]
    if not chosen:
        from difflib import get_close_matches

        close = get_close_matches(at, found.targets, n=3, cutoff=0.3) or found.targets[:5]
        raise UsageError(f"--at: no {found.axis} is called {at!r}; there are {', '.join(close)}, ...")
    return chosen


def _drawing(found: Course, chosen: Sequence[int]) -> Iterator[Text]:
    from nndoctor.reports.plot import legend, plot

    traces = list(_traces(found, chosen))
    width = min(100, _width())
    ascii = not (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    held = found.stretches if found.condition else ()
    yield from plot(traces, width=width, ascii=ascii, colour=coloured(), held=held, last_step=found.last_step)
    if len(traces) > 1:
        yield from legend(traces, coloured())


def _width() -> int:
    from shutil import get_terminal_size

    return get_terminal_size((100, 24)).columns


def _traces(found: Course, chosen: Sequence[int]) -> Iterator[Trace]:
    """A number as it is; of a comparison both sides; of any other condition 1 where it held."""
    from nndoctor.reports.plot import Trace

    if found.condition and found.sides:
        for text, whole in found.sides:
            constant = bool((whole.mean == whole.mean.flat[:1]).all()) if whole.mean.size else False
            yield from _spread(text, whole, chosen if whole.mean.shape[1] > 1 else [0], flat=constant)
        return
    if len(chosen) <= 4 and found.targets:
        for index in chosen:
            yield Trace(found.targets[index], found.whole.steps, found.whole.mean[:, index].astype(float))
        return
    yield from _spread(found.text, found.whole, chosen or [0], flat=False)


def _spread(text: str, whole: Whole, chosen: Sequence[int], flat: bool) -> Iterator[Trace]:
    """One curve for one target; lowest, median and highest for several."""
    import numpy as np

    from nndoctor.reports.plot import Trace

    values = whole.mean[:, list(chosen)].astype(float)  # (k, targets)
    if values.shape[1] == 1:
        yield Trace(text, whole.steps, values[:, 0], flat)
        return
    usable = ~np.isnan(values).all(axis=1)
    steps, values = whole.steps[usable], values[usable]
    for name, reduce in (("highest", np.nanmax), ("median", np.nanmedian), ("lowest", np.nanmin)):
        yield Trace(f"{text}, {name} of {values.shape[1]}", steps, np.asarray(reduce(values, axis=1), float))


def _where(found: Course) -> Iterator[Text]:
    """Which comparisons held how often, and at which targets."""
    if found.parts:
        rows: list[Sequence[str | Text]] = [("part", "held at", "of samples")]
        rows += [(plain(part.text), str(part.true), str(part.known)) for part in found.parts]
        yield from columns(rows)
    if found.condition and found.stretches:
        shown = ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in found.stretches[:6])
        more = f" and {len(found.stretches) - 6} more" if len(found.stretches) > 6 else ""
        yield plain(f"held in steps {shown}{more}")
    if found.held_at:
        more = f" and {len(found.held_at) - 6} more" if len(found.held_at) > 6 else ""
        yield plain(f"at {', '.join(found.held_at[:6])}{more}")


def _verdict(found: Course, folder: Path, missing: Sequence[str]) -> str:
    run = folder.name
    if missing:
        return f"Unknown throughout {run}: {', '.join(missing)} was not measured in it."
    if not found.known:
        return f"Unknown throughout {run}: a window that never filled, or a value that is undefined (0/0)."
    axis = "the run" if found.axis == "run" else f"each of {count(len(found.targets), found.axis)}"
    told = f"{count(found.known, 'sample')} over {found.last_step} steps, one value for {axis}"
    if not found.condition:
        return f"{told}{f', in {found.unit}' if found.unit not in ('', '1') else ''}."
    if not found.stretches:
        return f"Never true in {run}: {told}."
    true = sum(last - first + 1 for first, last in found.stretches)
    return f"True from step {found.stretches[0][0]} on, in {count(len(found.stretches), 'stretch').replace('stretchs', 'stretches')} of {true} steps in all: {told}."


def _as_dict(found: Course, chosen: Sequence[int], folder: Path, missing: Sequence[str]) -> dict[str, Any]:
    names = [found.targets[index] for index in chosen] if found.targets else [""]
    index = list(chosen) or [0]
    return {
        "run": folder.name,
        "expression": found.text,
        "per": found.axis,
        "condition": found.condition,
        "unit": found.unit,
        "samples": found.samples,
        "known": found.known,
        "last_step": found.last_step,
        "not_measured": list(missing),
        "held": [list(stretch) for stretch in found.stretches],
        "held_at": list(found.held_at),
        "parts": [{"text": part.text, "true": part.true, "known": part.known} for part in found.parts],
        "steps": found.whole.steps.tolist(),
        "values": {name: found.whole.mean[:, column].tolist() for name, column in zip(names, index, strict=True)},
    }
