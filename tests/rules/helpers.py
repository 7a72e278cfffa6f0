"""Short ways to evaluate an expression and to judge a written-down run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nndoctor.history import History, frames_from_series, targets_of_series
from nndoctor.rules import Judge, Ruleset, load_text
from nndoctor.rules.evaluation import Graph
from nndoctor.rules.expression import Names, parse
from nndoctor.signals import CATALOGUE, Targets

NAMES = Names(CATALOGUE)


def evaluate(text: str, series: Mapping[str, Any], targets: Targets | None = None, names: Names = NAMES) -> Any:
    """What `text` is worth after all of `series` has been seen; a list where it has one value per target."""
    targets = targets if targets is not None else targets_of_series(series)
    history = History(targets)
    graph = Graph(history)
    with np.errstate(all="ignore"):
        cell = graph.cell(parse(text, names))
        for frame in frames_from_series(series, targets):
            history.append(frame)
            graph.advance(frame)
        value = cell.get()
    return value if isinstance(value, float) else value.tolist()


def judged(rules: str, series: Mapping[str, Any], targets: Targets | None = None, **options: Any) -> Judge:
    """A judge that has seen all of `series`. `rules` is the text of a ruleset without its version."""
    judge = Judge(ruleset(rules), targets if targets is not None else targets_of_series(series), **options)
    for frame in frames_from_series(series, judge.targets):
        judge.feed(frame)
    return judge


def ruleset(rules: str) -> Ruleset:
    return load_text("version: 1\n" + rules)
