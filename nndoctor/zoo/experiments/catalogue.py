"""All experiments, in the order of their numbers."""

from __future__ import annotations

import difflib

from nndoctor.zoo.experiments import adam, convergence, paths, ratios, sharpness, times
from nndoctor.zoo.experiments.experiment import Experiment

EXPERIMENTS: tuple[Experiment, ...] = (*adam.EXPERIMENTS, *ratios.EXPERIMENTS, *convergence.EXPERIMENTS, *times.EXPERIMENTS, *paths.EXPERIMENTS, *sharpness.EXPERIMENTS)


class UnknownExperiment(ValueError):
    """No experiment has that name; the message says which there are."""


def experiment_named(name: str) -> Experiment:
    """The experiment called `name`, as ``E8``; case does not matter.

    Raises:
        UnknownExperiment: there is none.
    """
    known = {each.id: each for each in EXPERIMENTS}
    if name.upper() not in known:
        close = difflib.get_close_matches(name.upper(), known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UnknownExperiment(f"no experiment is called {name!r}; {hint}there are {', '.join(known)}")
    return known[name.upper()]
