"""Claims of the works this project continues, each put to the test on small real data, with a verdict that code decides."""

from __future__ import annotations

from nndoctor.zoo.experiments.catalogue import EXPERIMENTS, UnknownExperiment, experiment_named
from nndoctor.zoo.experiments.experiment import Experiment, Judgement, Measured, Plot, Protocol, Verdict
from nndoctor.zoo.experiments.runs import Bench, Finished, judgement

__all__ = [
    "EXPERIMENTS",
    "Bench",
    "Experiment",
    "Finished",
    "Judgement",
    "Measured",
    "Plot",
    "Protocol",
    "UnknownExperiment",
    "Verdict",
    "experiment_named",
    "judgement",
]
