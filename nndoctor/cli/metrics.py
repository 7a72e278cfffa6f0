"""``nndoctor metrics``: what can be measured on demand, by which name, in which unit, by which formula."""

from __future__ import annotations

from typing import Annotated

import typer

from nndoctor.cli.output import say, say_json


def metrics(json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Metrics that a run can be asked for, with unit and formula.

    nndoctor run --metric weights.norm2:layers=block*,every=10 -- train.py: TOPIC is one of the tensors listed at the end, P a
    number of at least 1 or inf, SIGNAL another metric that is switched on. MODULE:OBJECT is a subscriber of your own.
    """
    from nndoctor.metrics.kinds import KINDS, TENSORS
    from nndoctor.packaged import PROBES, packaged

    brought = [str(item) for item in packaged(PROBES)]
    if json:
        say_json({"metrics": [kind._asdict() for kind in KINDS.values()], "topics": list(TENSORS), "packages": brought})
        return
    for kind in KINDS.values():
        say(f"{kind.name}  [{kind.unit}]{f'  needs {kind.needs}' if kind.needs else ''}")
        say(f"    {kind.formula}")
    say(f"TOPIC: {', '.join(TENSORS)}")
    for name in brought:
        say(f"Always on, from an installed package: {name}")
    say(f"{len(KINDS)} kinds of metrics.")
