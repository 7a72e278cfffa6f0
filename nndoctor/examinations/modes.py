"""Whether the model computes the same loss in training and in evaluation mode, dropout and batch statistics set aside."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from nndoctor.examinations.patient import BATCH_NORMS, Batch, NotExaminable, Outcome, Patient, Trial
from nndoctor.examinations.rehearsal import Rehearsal, loss_for
from nndoctor.examinations.untouched import seed_generators
from nndoctor.findings import Fix
from nndoctor.probes.functional import FunctionMode

DRAWS = 4
"""Passes in each mode; more than one, because some models draw random numbers in both (a VAE)."""
# Modes without a branch on self.training agree to rounding. A twentieth of the loss is far above rounding and
# far below what a forgotten branch, scale or temperature does to it.
UNEXPLAINED = 0.05
INVERTED_MOMENTUM = 0.5
"""PyTorch's momentum is the weight of the new batch (0.1 by default); values such as 0.9 or 0.99 come from other libraries."""

INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
DROPPING = {"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"}


def examine(patient: Patient, rehearsal: Rehearsal) -> Iterator[Outcome]:
    """Losses in both modes with every dropout off and every batch normalisation on its running statistics."""
    always = functional_dropout(patient)
    if always:
        yield Outcome(
            "failed",
            f"{', '.join(always)} drops in evaluation mode too: called without training=self.training",
            "train-eval-mismatch",
            targets=tuple(always),
            fix=Fix("Call it as F.dropout(x, p, training=self.training), or use nn.Dropout", confidence="high"),
        )
        return
    inverted = tuple(
        name
        for name, m in patient.model.named_modules()
        if isinstance(m, BATCH_NORMS) and m.momentum is not None and m.momentum > INVERTED_MOMENTUM
    )
    if inverted:
        momentum = max(float(getattr(patient.model.get_submodule(name), "momentum", 0.0)) for name in inverted)
        yield Outcome(
            "warning",
            f"batch normalisation with momentum {momentum:g} keeps little but the last batch: in PyTorch it is the weight of the new one",
            "train-eval-mismatch",
            {"momentum": momentum},
            inverted,
            Fix("Use one minus this momentum", {"momentum": round(1 - momentum, 6)}, "high"),
        )
        return
    patient.needs_loss()
    training, evaluation = _losses(patient, train=True), _losses(patient, train=False)
    difference = abs(statistics.mean(training) - statistics.mean(evaluation))
    noise = max(statistics.stdev(training), statistics.stdev(evaluation))
    size = max(abs(statistics.mean(training)), abs(statistics.mean(evaluation)), 1e-12)
    numbers = {"train": statistics.mean(training), "eval": statistics.mean(evaluation), "noise": noise}
    told = f"loss {numbers['train']:.4g} in training mode, {numbers['eval']:.4g} in evaluation mode"
    if difference > UNEXPLAINED * size and difference > 4 * noise:
        yield Outcome(
            "warning",
            f"{told}, with dropout off and batch statistics frozen in both: forward() does something else when self.training",
            "train-eval-mismatch",
            numbers,
            fix=Fix("Look for branches on self.training that change the output"),
        )
    else:
        yield Outcome("passed", f"{told} (dropout and batch statistics set aside)", values=numbers)


def _losses(patient: Patient, *, train: bool) -> list[float]:
    found = []
    with torch.no_grad():
        for draw in range(DRAWS):
            seed_generators(draw)
            trial = patient.trial(train=train).without_dropout()
            _freeze_statistics(trial, patient.batch)
            try:
                found.append(float(loss_for(trial, patient.batch)))
            except Exception as error:
                if not train:
                    raise NotExaminable(f"the output in evaluation mode has no loss ({type(error).__name__})") from error
                raise
    return found


def _freeze_statistics(trial: Trial, batch: Batch) -> None:
    """Normalisations take the statistics of this batch for their running ones, and stay with them in both modes."""
    norms = [m for m in trial.modules() if isinstance(m, (*BATCH_NORMS, *INSTANCE_NORMS)) and m.track_running_stats]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # one pass then leaves its own statistics behind
        norm.train()
    if norms:
        trial.outputs(batch)
    for norm in norms:
        norm.eval()


def functional_dropout(patient: Patient) -> list[str]:
    """Names of the dropout functions that are active in evaluation mode."""
    trial, found = patient.trial(train=False), set()

    def seen(name: str, result: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        rate = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
        default = not name.endswith("alpha_dropout")
        training = args[2] if len(args) > 2 else kwargs.get("training", default)
        if training and rate > 0:
            found.add(f"F.{name}")

    with torch.no_grad(), FunctionMode({id(getattr(F, name)): name for name in DROPPING if hasattr(F, name)}, seen):
        trial.outputs(patient.batch)
    return sorted(found)
