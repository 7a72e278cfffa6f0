"""Whether the samples of a batch leave each other alone: no gradient from one sample's output to another's input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from nndoctor.examinations.patient import BATCH_NORMS, Batch, NotExaminable, Outcome, Patient, Trial
from nndoctor.examinations.rehearsal import Rehearsal
from nndoctor.examinations.sensitivity import NOTHING, gradients, only_axis, per_entry, respond
from nndoctor.examinations.trees import tensors
from nndoctor.findings import Fix

SIZES = (3, 5, 7, 4, 6, 2)
"""Numbers of samples to try: one that no other dimension has makes the dimension of the samples recognisable."""


def examine(patient: Patient, rehearsal: Rehearsal) -> Iterator[Outcome]:
    """Outputs only, in evaluation mode: batch statistics and losses over pairs may mix samples, predictions may not."""
    batch = patient.batch
    if batch.size is None:
        raise NotExaminable("an input says which samples belong together, as an adjacency matrix does")
    if batch.size < 2:
        raise NotExaminable("the batch has one sample")
    mixed, outputs = mixing(patient, batch)
    if mixed <= NOTHING:
        yield Outcome("passed", f"no gradient between samples in {', '.join(outputs)}", values={"mixing": mixed})
        return
    numbers = {"mixing": mixed}
    if not batch.axis_known and _mixes_along_other_axis(patient, batch) is False:
        raise NotExaminable(
            f"entries along dimension {batch.axis} influence each other, those along dimension {1 - batch.axis} do not: say which holds the samples (batch_axis=0 or 1)"
        )
    recurrent = [name for name, m in patient.model.named_modules() if isinstance(m, nn.RNNBase) and not m.batch_first]
    fix = "Look for view() or reshape() where transpose() is meant, and for sums over the first dimension"
    if recurrent and batch.axis == 0:
        fix = f"Make {', '.join(recurrent)} with batch_first=True: it takes the first dimension for time"
    yield Outcome(
        "failed",
        f"the output of a sample depends on other samples of the batch: their gradient is {mixed:.2g} of its own",
        "batch-dimension-mixed",
        numbers,
        tuple(recurrent),
        Fix(fix, {"batch_first": "True"} if recurrent and batch.axis == 0 else {}, "high" if recurrent else "medium"),
    )


def _mixes_along_other_axis(patient: Patient, batch: Batch) -> bool | None:
    other = replace(batch, axis=1 - batch.axis)
    if other.size is None or other.size < 2:
        return None
    try:
        return mixing(patient, other)[0] > NOTHING
    except (NotExaminable, RuntimeError):
        return None


def mixing(patient: Patient, batch: Batch) -> tuple[float, list[str]]:
    """Largest gradient of a sample's outputs to the inputs of others, over that to its own; and the outputs looked at."""
    count = _telling_size(batch, patient)
    few = batch.first(count)
    trial = patient.trial(train=False)
    _forget_batch_statistics(trial)
    response = respond(trial, few, lambda t: only_axis(t, count) is not None)
    worst, looked_at, felt = 0.0, [], False
    for name, output in response.outputs:
        axis = only_axis(output, count)
        if axis is None:
            continue  # one number for the whole batch, or one per pair of samples: meant to see all
        looked_at.append(name or "the output")
        for sample in (0, count - 1):
            own = other = 0.0
            for leaf, gradient in zip(
                response.leaves, gradients(output.select(axis, sample), response.leaves, patient.generator), strict=True
            ):
                leaf_axis = only_axis(leaf, count)
                assert leaf_axis is not None
                sizes = per_entry(gradient, leaf_axis)
                own = max(own, float(sizes[sample]))
                sizes[sample] = 0
                other = max(other, float(sizes.max()))
            felt = felt or own > 0 or other > 0
            worst = max(worst, other / max(own, other) if other > 0 else 0.0)
    if not looked_at:
        raise NotExaminable("no output has one entry per sample")
    if not felt:
        raise NotExaminable("no output depends on the inputs through a gradient")
    return worst, looked_at


def _telling_size(batch: Batch, patient: Patient) -> int:
    size = batch.size or 0
    taken = {n for t in (*tensors(batch.args), *tensors(dict(batch.kwargs))) for axis, n in enumerate(t.shape) if axis != batch.axis}
    taken |= {n for p in patient.model.parameters() for n in p.shape}
    return next((n for n in SIZES if n <= size and n not in taken), min(size, SIZES[0]))


def _forget_batch_statistics(trial: Trial) -> None:
    """Batch normalisation that keeps no running statistics would use the batch's own in evaluation mode as well."""
    for module in trial.modules():
        if isinstance(module, BATCH_NORMS) and module.running_mean is None:
            module.running_mean = torch.zeros(module.num_features, device=_device(module))
            module.running_var = torch.ones(module.num_features, device=_device(module))


def _device(module: nn.Module) -> torch.device:
    return next((p.device for p in module.parameters()), torch.device("cpu"))
