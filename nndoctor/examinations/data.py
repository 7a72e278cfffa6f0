"""What goes in: devices, types, finite values, and the scale of inputs and targets."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nndoctor.examinations.patient import NotExaminable, Outcome, Patient
from nndoctor.examinations.rehearsal import Rehearsal
from nndoctor.findings import Fix

# As in rulesets/core/inputs-not-normalised.yaml: standardised images lie in [-2.2, 2.7], raw pixels have mean and
# standard deviation of 50 to 130, columns from 1 to 100 give 25.
LARGEST_INPUT = 10.0
WIDEST_FEATURE = 100.0
# As in rulesets/core/targets-not-scaled.yaml: targets of size 1 are learnt in 50 steps; at 50 SGD diverges and Adam
# needs four times as long.
LARGEST_TARGET = 30.0


def examine_types(patient: Patient, ran: bool) -> Iterator[Outcome]:
    """Inputs and parameters on one device, of types that fit, and finite.

    A mismatch matters only where the model does not run: many models move and convert their inputs themselves.
    """
    batch = patient.batch
    mismatches = [] if ran else list(_mismatches(patient))
    yield from mismatches
    broken = [name for name, t in batch.inputs if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if broken:
        count = sum(int((~torch.isfinite(t)).sum()) for name, t in batch.inputs if name in broken)
        yield Outcome(
            "failed",
            f"{', '.join(broken)}: {count} values are NaN or infinite",
            "nan-or-inf",
            {"nonfinite": float(count)},
            tuple(broken),
            Fix("Remove or impute the values that are not finite before they enter the model"),
        )
    answers = batch.answers
    if answers is not None and answers.is_floating_point() and not bool(torch.isfinite(answers).all()):
        count = int((~torch.isfinite(answers)).sum())
        yield Outcome("failed", f"{count} targets are NaN or infinite", "nan-or-inf", {"nonfinite": float(count)}, ("targets",))
    elif not broken and not mismatches:
        kinds = [f"{name} {_kind(t)}" for name, t in batch.inputs[:3]]
        if answers is not None and answers is not batch.inputs[0][1]:
            kinds.append(f"targets {_kind(answers)}")
        yield Outcome("passed", ", ".join(kinds) + ", all finite")


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.") + (f" on {tensor.device}" if tensor.device.type != "cpu" else "")


def _mismatches(patient: Patient) -> Iterator[Outcome]:
    parameters = [p for p in patient.model.parameters() if p.is_floating_point()]
    if not parameters:
        return
    devices, kind = {p.device for p in parameters}, parameters[0].dtype
    for name, tensor in patient.batch.inputs:
        if tensor.device not in devices:
            where = ", ".join(sorted(map(str, devices)))
            yield Outcome(
                "failed", f"{name} are on {tensor.device}, the parameters on {where}", targets=(name,), fix=Fix("Move the batch to the model's device")
            )
        if tensor.is_floating_point() and tensor.dtype != kind:
            yield Outcome(
                "failed", f"{name} are {_kind(tensor)}, the parameters {_name(kind)}", targets=(name,), fix=Fix(f"Convert {name} to {_name(kind)}")
            )
        elif tensor.dtype == torch.uint8 and tensor.dim() >= 3:
            yield Outcome(
                "failed", f"{name} are images of integers (uint8)", targets=(name,), fix=Fix(f"Convert {name} with .float() / 255 and standardise them")
            )


def _name(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


def examine_input_scale(patient: Patient, rehearsal: Rehearsal) -> Iterator[Outcome]:
    """Size of what arrives at the first layer with weights, after whatever the model does to its inputs before."""
    first = next((call for call in rehearsal.calls if call.arriving is not None or call.normalises or call.embeds), None)
    if first is None:
        raise NotExaminable("no layer with weights reads floating-point inputs")
    if first.embeds:
        yield Outcome("passed", f"the first layer ({first.name or 'the model'}) looks up embeddings")
        return
    if first.normalises:
        yield Outcome("passed", f"the first layer ({first.name or 'the model'}) normalises its inputs")
        return
    arriving = first.arriving
    assert arriving is not None
    values = arriving.float()
    mean, deviation = float(values.mean()), float(values.std())
    numbers = {"mean": mean, "std": deviation}
    described = f"mean {mean:.3g}, standard deviation {deviation:.3g} at {first.name or 'the first layer'}"
    if max(abs(mean), deviation) > LARGEST_INPUT:
        fix = Fix("Standardise the inputs", {"input_mean": round(mean, 6), "input_std": round(max(deviation, 1e-12), 6)}, "high")
        yield Outcome("failed", f"{described}; nothing normalises them", "inputs-not-normalised", numbers, (first.name,), fix)
        return
    spread = _spread(values)
    if spread is not None and spread > WIDEST_FEATURE:
        message = f"the widest column varies {spread:.3g} times as much as the median one; nothing normalises them"
        yield Outcome("warning", message, "inputs-not-normalised", {**numbers, "spread": spread}, (first.name,), Fix("Standardise every column"))
        return
    yield Outcome("passed", described, values=numbers)


def _spread(values: Tensor) -> float | None:
    """Largest over median standard deviation of the columns of a table, None for anything else.

    Rare flags and word counts have tiny deviations without being ill: only columns with large values count.
    """
    if values.dim() != 2 or values.shape[0] < 4 or values.shape[1] < 3:
        return None
    deviations = values.std(dim=0)
    largest, median = float(deviations.max()), float(deviations.median())
    return largest / median if median > 0 and largest > LARGEST_INPUT else None


def examine_target_scale(patient: Patient, rehearsal: Rehearsal) -> Iterator[Outcome]:
    """Size of the targets of a regression, against a fresh net's answers of size 1."""
    graph, answers = rehearsal.graph, patient.batch.answers
    if graph is None or not graph.regression:
        raise NotExaminable("the loss measures no distance to real numbers")
    target = graph.target if graph.target is not None else answers
    if target is None:
        raise NotExaminable("the loss does not tell what it compares with")
    values = target.float()
    mean, deviation = float(values.mean()), float(values.std()) if values.numel() > 1 else 0.0
    numbers = {"mean": mean, "std": deviation}
    described = f"mean {mean:.3g}, standard deviation {deviation:.3g}"
    size = max(abs(mean), deviation)
    prediction = rehearsal.prediction
    # A model that answers in the scale of its targets (a scaled last layer, a pretrained one) has no problem with it.
    answered = 0.0 if prediction is None else float(prediction.float().abs().mean())
    if size > LARGEST_TARGET and answered < size / 10:
        fix = Fix("Standardise the targets", {"target_mean": round(mean, 6), "target_std": round(max(deviation, 1e-12), 6)}, "high")
        message = f"{described}, while the model answers with numbers of size {answered:.2g}"
        yield Outcome("failed", message, "targets-not-scaled", numbers, (), fix)
    else:
        yield Outcome("passed", described, values=numbers)
