"""The loss: whether it fits the output and the targets, and whether it starts where a guess would."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from nndoctor.examinations.patient import Batch, NotExaminable, Outcome, Patient
from nndoctor.examinations.rehearsal import Rehearsal
from nndoctor.findings import Fix
from nndoctor.probes.graph import LossGraph

RANGES = {
    "SigmoidBackward0": ("a sigmoid", 0.0, 1.0),
    "SoftmaxBackward0": ("a softmax", 0.0, 1.0),
    "TanhBackward0": ("a tanh", -1.0, 1.0),
    "ReluBackward0": ("a ReLU", 0.0, math.inf),
    "HardtanhBackward0": ("a clamp", -1.0, 1.0),
}
"""Last operations of a model that bound its output, and the bounds."""

UNREACHABLE = 0.05
"""Share of targets outside the range of the output that is no longer noise around a bound."""

# Healthy nets start at 0.97 to 1.07 times the loss of a uniform guess, raw pixels at up to 3.2 times, oversized weights
# at 3.8 to 50 000 times (sweep in rulesets/core/bad-initialization.yaml).
START = 3.0


def examine_contract(patient: Patient, rehearsal: Rehearsal) -> Iterator[Outcome]:
    """Mistakes that the graph and the shapes prove: softmax twice, broadcasting, one class, a range too small."""
    graph = rehearsal.graph
    if graph is None:
        raise NotExaminable("the loss has no graph")
    found = [
        *_twice(rehearsal, graph),
        *_broadcast(patient, rehearsal, graph),
        *_one_class(rehearsal, graph),
        *_unnormalised(rehearsal, graph),
        *_out_of_range(patient, rehearsal, graph),
    ]
    yield from found
    if not found:
        known = f"{graph.classes} classes" if graph.classes else _shape_of(rehearsal.prediction)
        yield Outcome("passed", f"{graph.kind}, {known}")


def _shape_of(prediction: Tensor | None) -> str:
    return "no prediction among the outputs" if prediction is None else f"prediction {tuple(prediction.shape)}"


def _twice(rehearsal: Rehearsal, graph: LossGraph) -> Iterator[Outcome]:
    if graph.softmax_twice:
        yield Outcome(
            "failed",
            f"the loss ({graph.kind}) applies a softmax or sigmoid to outputs that have been through one already",
            "double-softmax",
            fix=Fix("Return logits from the model", {"final_activation": "none"}, "high", "safe"),
        )


def _broadcast(patient: Patient, rehearsal: Rehearsal, graph: LossGraph) -> Iterator[Outcome]:
    shapes = _compared(patient, rehearsal, graph)
    if shapes is None and not (graph.broadcast > 1 and _is_a_column(rehearsal.prediction)):
        return
    pair = f"{shapes[0]} against {shapes[1]}" if shapes is not None else "prediction and target"
    yield Outcome(
        "failed",
        f"shapes {pair} were broadcast: the loss compares every prediction with targets of other samples",
        "loss-shape-broadcast",
        {"factor": graph.broadcast},
        fix=Fix("Give prediction and target one shape: prediction.squeeze(1), or target.unsqueeze(1)", confidence="high"),
    )


def _is_a_column(prediction: Tensor | None) -> bool:
    """Whether there is one number per sample: a square of anything wider is a batch as large as its width, normalised."""
    return prediction is not None and max(prediction.shape, default=0) == prediction.numel()


def _compared(patient: Patient, rehearsal: Rehearsal, graph: LossGraph) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Shapes of prediction and target where a distance between them grows larger than both."""
    prediction, target = rehearsal.prediction, patient.batch.answers
    if prediction is None or target is None or not graph.regression or prediction.shape == target.shape:
        return None
    one, other = tuple(prediction.shape), tuple(target.shape)
    warned = any("target size" in text and "different to the input size" in text for text in rehearsal.warned)
    try:
        together = math.prod(torch.broadcast_shapes(one, other))  # type: ignore[no-untyped-call]
    except RuntimeError:
        return None
    return (one, other) if warned and together > max(math.prod(one), math.prod(other)) else None


def _one_class(rehearsal: Rehearsal, graph: LossGraph) -> Iterator[Outcome]:
    if graph.classes == 1:
        yield Outcome(
            "failed",
            "cross entropy over one class is zero whatever the model answers",
            "wrong-loss-for-task",
            {"classes": 1.0},
            fix=Fix("Use BCEWithLogitsLoss for one output, or give the model one output per class", confidence="high"),
        )


def _unnormalised(rehearsal: Rehearsal, graph: LossGraph) -> Iterator[Outcome]:
    """NLLLoss reads log-probabilities; what is no such thing can drive it to minus infinity."""
    prediction = rehearsal.prediction
    softmaxed = rehearsal.ends_with == "LogSoftmaxBackward0"
    if graph.kind != "cross entropy" or prediction is None or softmaxed or prediction.dim() < 2 or rehearsal.loss >= 0:
        return
    yield Outcome(
        "failed",
        f"NLLLoss is {rehearsal.loss:.3g}, below zero: it expects log-probabilities and gets something else",
        "wrong-loss-for-task",
        {"loss": rehearsal.loss},
        fix=Fix("Use CrossEntropyLoss, or end the model with log_softmax", confidence="high"),
    )


def _out_of_range(patient: Patient, rehearsal: Rehearsal, graph: LossGraph) -> Iterator[Outcome]:
    """Targets of a regression that the last activation cannot reach."""
    prediction = rehearsal.prediction
    name, low, high = RANGES.get(rehearsal.ends_with, ("", -math.inf, math.inf))
    if prediction is None or not name:
        return
    if rehearsal.ends_with == "SoftmaxBackward0" and bool((prediction == 1).all()):
        yield Outcome(
            "failed",
            "the output is a softmax over a single unit, which is always 1",
            "wrong-output-activation",
            fix=Fix("Use a sigmoid for one unit, or return the logit", {"final_activation": "none"}, "high"),
        )
        return
    target = graph.target if graph.target is not None else patient.batch.answers
    if not graph.regression or target is None:
        return
    outside = float(((target < low - 1e-3) | (target > high + 1e-3)).float().mean())
    if outside > UNREACHABLE:
        span = f"{low:g} to {high:g}" if high < math.inf else f"{low:g} or more"
        yield Outcome(
            "failed",
            f"the output ends in {name} ({span}); {outside:.0%} of the targets lie outside ({float(target.min()):.3g} to {float(target.max()):.3g})",
            "wrong-output-activation",
            {"outside": outside},
            fix=Fix("Remove the last activation", {"final_activation": "none"}, "high"),
        )


def examine_start(patient: Patient, rehearsal: Rehearsal) -> Iterator[Outcome]:
    """The first loss against that of a constant guess, which the user's own loss function tells."""
    if not math.isfinite(rehearsal.loss):
        yield Outcome("failed", f"the first loss is {rehearsal.loss}", "nan-or-inf", {"loss": rehearsal.loss})
        return
    constant = patterned_weights(patient)
    if constant:
        yield constant
        return
    guess = None if patient.unknown_loss else guess_loss(patient, rehearsal)
    if guess is None:
        yield Outcome("passed", f"{rehearsal.loss:.4g}, finite (what a guess would have is not known for this loss)", values={"loss": rehearsal.loss})
        return
    numbers = {"loss": rehearsal.loss, "chance": guess}
    patient.notes["chance"] = guess
    far_targets = rehearsal.graph is not None and rehearsal.graph.regression and _mean_far_from_zero(patient, rehearsal)
    if guess > 0 and rehearsal.loss > START * guess and not far_targets:
        yield Outcome(
            "warning",
            f"{rehearsal.loss:.4g} is {rehearsal.loss / guess:.3g} times the loss of a constant guess ({guess:.4g}): the fresh model is sure of wrong answers",
            "bad-initialization",
            numbers,
            fix=Fix("Scale the weights by the fan-in, the last layer's above all (or look at the scale of the inputs)"),
        )
    elif 0 < rehearsal.loss < guess / 2:
        yield Outcome("passed", f"{rehearsal.loss:.4g}, well below a constant guess ({guess:.4g}): as of a model that was trained before", values=numbers)
    else:
        yield Outcome("passed", f"{rehearsal.loss:.4g}; a constant guess has {guess:.4g}", values=numbers)


def _mean_far_from_zero(patient: Patient, rehearsal: Rehearsal) -> bool:
    """Whether the targets lie so far from zero that every fresh model starts far above their variance."""
    target = rehearsal.graph.target if rehearsal.graph is not None else None
    target = target if target is not None else patient.batch.answers
    return target is not None and target.numel() > 1 and float(target.float().mean().abs()) > float(target.float().std())


def patterned_weights(patient: Patient) -> Outcome | None:
    """Weight matrices whose elements are all equal: the units of such a layer can only learn the same thing.

    Zero-initialised heads, LoRA's B and the last matrix of a residual branch are good tricks that touch at most half
    of the matrices (as in rulesets/core/bad-initialization.yaml).
    """
    matrices = {
        name: p
        for name, p in patient.model.named_parameters()
        if p.dim() >= 2 and min(p.shape[:2]) > 1 and p.requires_grad and p.is_floating_point() and p.numel() > 1
    }
    constant = tuple(name for name, p in matrices.items() if bool((p.detach() == p.detach().flatten()[0]).all()))
    if len(constant) * 2 <= len(matrices):
        return None
    return Outcome(
        "failed",
        f"{len(constant)} of {len(matrices)} weight matrices have all elements equal: units of a layer can only learn the same thing",
        "bad-initialization",
        {"constant": float(len(constant)), "matrices": float(len(matrices))},
        constant,
        Fix("Initialise the weights at random (torch's own default will do)", confidence="high"),
    )


def guess_loss(patient: Patient, rehearsal: Rehearsal) -> float | None:
    """The loss of the best constant answer that needs no training; None where that cannot be asked.

    The user's own loss function is given constants in place of the prediction, so class weights, label smoothing, ignored positions
    and reductions are as they are: zeros for logits (ln C for C classes, ln 2 for one), the mean target for a distance (the
    variance of the targets). Where the model computes its loss itself, ln C stands for a cross entropy.
    """
    graph, prediction = rehearsal.graph, rehearsal.prediction
    if graph is None or prediction is None:
        return None
    if patient.loss_function is None:
        return math.log(graph.classes) if graph.classes and graph.kind == "cross entropy" else None
    if not isinstance(rehearsal.outputs, Tensor):
        return None
    trial, batch = patient.trial(), patient.batch
    answer = _constant(batch, prediction, graph)
    if answer is None:
        return None
    with torch.no_grad():
        value = float(trial.loss(answer, batch))
    return value if math.isfinite(value) else None


def _constant(batch: Batch, prediction: Tensor, graph: LossGraph) -> Tensor | None:
    if graph.regression and (graph.target is not None or batch.answers is not None):
        target = graph.target if graph.target is not None else batch.answers
        assert target is not None
        return torch.full_like(prediction, float(target.float().mean()))
    if graph.kind == "binary cross entropy":
        return torch.full_like(prediction, 0.5)
    if graph.kind in ("cross entropy", "binary cross entropy with logits"):
        classes = graph.classes or 1
        return torch.full_like(prediction, -math.log(classes))  # NLLLoss reads it as it is; a softmax does not see the shift
    return None
