"""Masks: no position sees later ones, padding is neither seen nor counted."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from nndoctor.examinations.patient import Batch, NotExaminable, Outcome, Patient, Trial
from nndoctor.examinations.rehearsal import Rehearsal, prediction_among
from nndoctor.examinations.sensitivity import NOTHING, embeddings_replaced, gradients, only_axis, per_entry, respond
from nndoctor.findings import Fix

SAMPLES = 2
SHIFTED = 0.95
"""Share of targets that must be the next input for a model to be meant to predict it; the last ones may be padding."""
MARKS_CONTENT = ("attention_mask",)
"""Keywords whose mask is 1 where there is content, as in Hugging Face models."""
MARKS_PADDING = ("src_key_padding_mask", "key_padding_mask", "padding_mask")
"""Keywords whose mask is True where there is padding, as in torch."""


def examine_causal(patient: Patient, rehearsal: Rehearsal) -> Iterator[Outcome]:
    """Gradient of the output at a position to inputs at later ones; it must be zero."""
    reason = _why_causal(patient)
    length = _length(patient)
    few = patient.batch.first(SAMPLES)
    few, length = _recognisable(patient, few, length)
    trial = patient.trial(train=False)
    axis_in = 1 - few.axis
    count = few.size or 0
    response = respond(trial, few, lambda t: t.dim() > 1 and t.shape[axis_in] == length and t.shape[few.axis] == count)
    looked_at = [(name, t, only_axis(t, length)) for name, t in response.outputs]
    predictions = [(name, t, axis) for name, t, axis in looked_at if axis is not None]
    if not predictions:
        raise NotExaminable(f"no output has one entry per position ({length})")
    _, output, axis = next(((n, t, a) for n, t, a in predictions if n == "logits"), predictions[0])
    worst, where, farthest = 0.0, 0, 0
    for position in sorted({0, length // 4, length // 2, length - 2}):
        seen = torch.zeros(length)
        for gradient in gradients(output.select(axis, position), response.leaves, patient.generator):
            seen = torch.maximum(seen, per_entry(gradient, axis_in))
        later = seen[position + 1 :]
        leak = float(later.max() / seen.max()) if float(seen.max()) > 0 else 0.0
        if leak > worst:
            worst, where, farthest = leak, position, int((later > NOTHING * seen.max()).nonzero().max()) + 1
    numbers = {"leak": worst, "positions": float(length)}
    if worst > NOTHING:
        yield Outcome(
            "failed",
            f"the output at position {where} depends on inputs up to {farthest} later ({reason}); gradient {worst:.2g} of the largest",
            "attention-mask-leak",
            {**numbers, "farthest": float(farthest)},
            tuple(_attention(patient.model)),
            Fix("Mask later positions in every attention layer (is_causal=True, or a lower triangular mask)", confidence="high"),
        )
        return
    if not patient.unknown_loss and _answers_itself(patient, trial, few):
        yield Outcome(
            "failed",
            "the mask holds, but the targets are the inputs themselves, unshifted: each position is asked for the token it is given",
            "label-leakage",
            numbers,
            fix=Fix("Shift the targets by one: predict inputs[:, 1:] from inputs[:, :-1]", confidence="high"),
        )
        return
    yield Outcome("passed", f"positions see earlier ones only ({reason})", values=numbers)


def _why_causal(patient: Patient) -> str:
    """Why the model is meant to see earlier positions only. Raises NotExaminable where it is not."""
    if patient.causal is False:
        raise NotExaminable("causal=False")
    if patient.causal:
        return "causal=True"
    batch = patient.batch
    answers = batch.answers
    if answers is not None and batch.inputs:
        first = batch.inputs[0][1]
        if answers.shape == first.shape and first.dim() >= 2 and first.shape[1 - batch.axis] > 2:
            steps = first.shape[1 - batch.axis]
            ahead = first.narrow(1 - batch.axis, 1, steps - 1)
            before = answers.narrow(1 - batch.axis, 0, steps - 1)
            if float((ahead == before).float().mean()) >= SHIFTED:
                return "the targets are the inputs shifted by one"
        if patient.loss_function is None and "labels" in batch.kwargs and _same_tokens(answers, first):
            decoder = getattr(patient.model, "config", None)
            if not getattr(decoder, "is_encoder_decoder", False):
                return "the labels are the inputs, which a causal language model shifts itself"
    raise NotExaminable("the targets are not the next inputs; say causal=True if later positions must not be seen")


def _same_tokens(answers: Tensor, tokens: Tensor) -> bool:
    """Whether the labels are the tokens, but for positions that are ignored (-100)."""
    if answers.shape != tokens.shape or answers.is_floating_point() or tokens.dim() < 2:
        return False
    return bool(((answers == tokens) | (answers < 0)).all()) and float((answers == tokens).float().mean()) > 0.5


def _length(patient: Patient) -> int:
    shapes = [t.shape for _, t in patient.batch.inputs if t.dim() >= 2]
    if not shapes:
        raise NotExaminable("no input has positions")
    return int(shapes[0][1 - patient.batch.axis])


def _recognisable(patient: Patient, few: Batch, length: int) -> tuple[Batch, int]:
    """A length that no other dimension of the output has, if the model takes shorter sequences; else as it is."""
    for shorter in (length, length - 1, length - 2, length // 2):
        cut = _cut_time(few, length, shorter)
        try:
            with torch.no_grad():
                prediction = prediction_among(patient.trial(train=False).outputs(cut))
        except Exception:
            continue  # it takes no other length
        if shorter > 2 and prediction is not None and only_axis(prediction, shorter) is not None:
            return cut, shorter
    raise NotExaminable(f"no output has one entry per position ({length})")


def _cut_time(batch: Batch, length: int, shorter: int) -> Batch:
    time = 1 - batch.axis
    return batch.mapped(lambda t: t.narrow(time, 0, shorter) if t.dim() > 1 and t.shape[time] == length else t)


def _answers_itself(patient: Patient, trial: Trial, few: Batch) -> bool:
    """Whether a token is its own target: targets equal inputs, and the loss reads the very last position too.

    A loss that shifts targets itself has nothing to compare the last position with.
    """
    answers, first = few.answers, few.inputs[0][1]
    if answers is None or answers.shape != first.shape or first.is_floating_point() or not bool((answers == first).all()):
        return False
    outputs = trial.outputs(few)
    prediction = prediction_among(outputs)
    axis = None if prediction is None else only_axis(prediction, first.shape[1 - few.axis])
    if prediction is None or axis is None:
        return False
    (gradient,) = torch.autograd.grad(trial.loss(outputs, few), prediction, allow_unused=True)
    return gradient is not None and float(per_entry(gradient, axis)[-1]) > 0


def _attention(model: nn.Module) -> list[str]:
    """Names of modules that look like attention."""
    found = [n for n, m in model.named_modules() if isinstance(m, nn.MultiheadAttention) or "attention" in type(m).__name__.lower()]
    return found[:8]


def padded_positions(patient: Patient) -> tuple[Batch, Tensor]:
    """A small batch and which of its positions are padding (samples, positions), True where padded.

    Raises:
        NotExaminable: nothing says what padding is, or nothing is padded.
    """
    batch = patient.batch
    tokens = next((t for _, t in batch.inputs if not t.is_floating_point() and t.dim() == 2), None)
    padded = _masked(batch)
    if padded is None:
        index = patient.padding_index if patient.padding_index is not None else _padding_of_embedding(patient.model)
        if index is None or tokens is None:
            raise NotExaminable("nothing says what padding is: no mask among the inputs, no padding_index")
        padded = tokens == index
    rows = padded.any(dim=1) & ~padded.all(dim=1)
    if not bool(rows.any()):
        raise NotExaminable("no position of the batch is padding")
    return batch, padded


def _masked(batch: Batch) -> Tensor | None:
    """True where a mask among the keywords says that there is padding; None without a mask."""
    for name, tensor in batch.inputs:
        if tensor.dim() == 2 and name in MARKS_CONTENT:
            return tensor == 0
        if tensor.dim() == 2 and name in MARKS_PADDING and not tensor.is_floating_point():
            return tensor != 0
    return None


def _padding_of_embedding(model: nn.Module) -> int | None:
    return next((m.padding_idx for m in model.modules() if isinstance(m, nn.Embedding) and m.padding_idx is not None), None)


def examine_padding(patient: Patient, rehearsal: Rehearsal) -> Iterator[Outcome]:
    """Other content at padded positions must change no output of the others.

    What is changed is the embedding of the padding, so that a mask made from the tokens stays what it is.
    """
    batch, padded = padded_positions(patient)
    still = _output_with_padding(patient, batch, padded, noise=False)
    moved = _output_with_padding(patient, batch, padded, noise=True)
    positions = tuple(still.shape[:2]) == tuple(padded.shape)
    shown = still if not positions else still[~padded]
    difference = (moved if not positions else moved[~padded]) - shown
    leak = float(difference.abs().max() / shown.abs().max().clamp_min(1e-12))
    numbers = {"leak": leak, "padded": float(padded.float().mean())}
    # Rounding in half precision is 1e-3; a mask of large negative numbers leaves exactly nothing behind.
    if leak <= (1e-2 if still.dtype in (torch.float16, torch.bfloat16) else 1e-4):
        yield Outcome("passed", f"what stands in padded positions ({numbers['padded']:.0%}) changes no output", values=numbers)
        return
    yield Outcome(
        "failed",
        f"what stands in padded positions changes the outputs of others by {leak:.2g} of their size",
        "attention-mask-leak",
        numbers,
        tuple(_attention(patient.model)),
        Fix("Hand a padding mask to every attention layer, and leave padding out of means and last states"),
    )


@torch.no_grad()
def _output_with_padding(patient: Patient, batch: Batch, padded: Tensor, *, noise: bool) -> Tensor:
    generator, trial = patient.generator, patient.trial(train=False)

    def disturbed(tensor: Tensor) -> Tensor:
        if not noise or tensor.dim() < 3 or tuple(tensor.shape[:2]) != tuple(padded.shape):
            return tensor
        strange = torch.randn(tensor.shape, generator=generator).to(tensor) * tensor.float().std()
        return torch.where(padded[..., None].reshape(*padded.shape, *[1] * (tensor.dim() - 2)), strange, tensor)

    with embeddings_replaced(trial.model, disturbed):
        outputs = trial.outputs(batch.with_inputs(lambda t: disturbed(t) if t.is_floating_point() else t))
    prediction = prediction_among(outputs)
    if prediction is None:
        raise NotExaminable("no output has predictions")
    axis = only_axis(prediction, padded.shape[1])
    return prediction.movedim(axis, 1) if axis is not None and axis > 1 else prediction


def examine_padded_loss(patient: Patient, rehearsal: Rehearsal) -> Iterator[Outcome]:
    """Gradient of the loss to the predictions at padded positions; it must be zero."""
    batch, padded = padded_positions(patient)
    answers = batch.answers
    if answers is None or answers.dim() < 2 or tuple(answers.shape[:2]) != tuple(padded.shape):
        raise NotExaminable("the targets have no positions")
    if batch.targets is not None and not answers.is_floating_point():
        index = patient.padding_index if patient.padding_index is not None else _padding_of_embedding(patient.model)
        padded = padded & (answers == index) if index is not None else padded
    patient.needs_loss()
    trial = patient.trial(train=False)
    outputs = trial.outputs(batch)
    prediction = prediction_among(outputs)
    axis = None if prediction is None else only_axis(prediction, padded.shape[1])
    if prediction is None or axis is None or not prediction.requires_grad:
        raise NotExaminable("no prediction has one entry per position")
    (gradient,) = torch.autograd.grad(trial.loss(outputs, batch), prediction, allow_unused=True)
    if gradient is None:
        raise NotExaminable("the loss does not depend on the predictions")
    per_position = gradient.movedim(axis, 1).flatten(2).abs().amax(dim=2) if gradient.dim() > 2 else gradient.abs()
    share = float((per_position[padded] > 0).float().mean()) if bool(padded.any()) else 0.0
    numbers = {"counted": share, "padded": float(padded.float().mean())}
    if share > 0.5:  # a causal model's last real position predicts the first padding; that alone is no mistake
        yield Outcome(
            "failed",
            f"padded positions ({numbers['padded']:.0%} of all) count in the loss",
            "padding-in-loss",
            numbers,
            fix=Fix("Leave padding out: CrossEntropyLoss(ignore_index=...) with the padding token, or labels of -100 there", confidence="high"),
        )
    else:
        yield Outcome("passed", f"padded positions ({numbers['padded']:.0%}) do not count", values=numbers)
