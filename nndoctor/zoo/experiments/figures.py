"""One small figure for each experiment, from its measurements alone."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from nndoctor.lab.figures import new_figure
from nndoctor.zoo.experiments.experiment import Experiment, Measured

COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink", "tab:gray", "tab:olive")


def draw_experiment(experiment: Experiment, runs: Sequence[Measured]) -> Any:
    """A ``matplotlib.figure.Figure``: every seed is a line, or a dot.

    Raises:
        FiguresUnavailable: matplotlib is not installed.
    """
    figure = new_figure(5.2, 3.2)
    axes = figure.subplots()
    (_lines if experiment.plot.curves else _dots)(axes, experiment, runs)
    axes.set_title(f"{experiment.id}: {experiment.title}", fontsize=10)
    axes.tick_params(labelsize=8)
    return figure


def _lines(axes: Any, experiment: Experiment, runs: Sequence[Measured]) -> None:
    plot = experiment.plot
    names = list(dict.fromkeys(name for run in runs for name in run.curves if name.startswith(plot.curves)))
    for name, colour in zip(names, COLOURS * len(names), strict=False):
        label = name.partition(": ")[2] or name
        for run in runs:
            if name in run.curves:
                style = {"marker": ".", "linestyle": "none", "markersize": 3} if plot.scattered else {"linewidth": 1}
                axes.plot(*run.curves[name], color=colour, alpha=0.7, label=label, **style)
                label = "_"
    axes.set(xlabel=plot.x, ylabel=plot.y, xscale="log" if plot.log_x else "linear", yscale="log" if plot.log_y else "linear")
    for limit in plot.limits:
        axes.axhline(limit, color="black", linewidth=0.8, linestyle="--")
    if len(names) > 1:
        axes.legend(fontsize=7)


def _dots(axes: Any, experiment: Experiment, runs: Sequence[Measured]) -> None:
    plot = experiment.plot
    labels = shortened(plot.numbers)
    for place, name in enumerate(plot.numbers):
        values = [run[name] for run in runs if run[name] == run[name]]
        axes.plot(values, [place] * len(values), "o", color=COLOURS[0], alpha=0.6, markersize=4)
        if values:
            axes.plot([statistics.fmean(values)], [place], "|", color="black", markersize=14)
    axes.set_yticks(range(len(labels)))
    axes.set_yticklabels(labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set(xlabel=plot.y, xscale="log" if plot.log_y else "linear")
    axes.grid(axis="y", linewidth=0.3)
    for limit in plot.limits:
        axes.axvline(limit, color="black", linewidth=0.8, linestyle="--")


def shortened(names: Sequence[str]) -> list[str]:
    """The names without the words that all of them begin or end with.

    >>> shortened(["accuracy with fc1 at init", "accuracy with conv1 at init"])
    ['fc1', 'conv1']
    """
    if len(names) < 2:
        return list(names)
    words = [name.split(" ") for name in names]
    head = _shared(words)
    tail = _shared([part[head:][::-1] for part in words])
    return [" ".join(part[head : len(part) - tail]) or name for part, name in zip(words, names, strict=True)]


def _shared(words: Sequence[Sequence[str]]) -> int:
    """How many words all begin with."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False)))
