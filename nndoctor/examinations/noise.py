"""Gradient noise scale, which says up to which size a larger batch still pays.

McCandlish et al. 2018, An Empirical Model of Large-Batch Training (https://arxiv.org/abs/1812.06162), appendix A.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nndoctor.examinations.patient import Batch, NotExaminable, Outcome, Patient
from nndoctor.examinations.rehearsal import Rehearsal, loss_for
from nndoctor.examinations.untouched import seed_generators

PARTS = 8
FEWEST_SAMPLES = 8


@dataclass(frozen=True)
class NoiseScale:
    """Squared length of the true gradient, trace of its covariance over samples, their ratio, and its standard error."""

    signal: float
    noise: float
    scale: float
    error: float


def examine(patient: Patient, rehearsal: Rehearsal) -> Iterator[Outcome]:
    """Noise of the gradient at the start, from the parts of one batch; it grows as the loss falls."""
    patient.needs_loss()
    if not rehearsal.has_graph:
        raise NotExaminable("the loss has no gradient")
    size = patient.batch.size
    if size is None or size < FEWEST_SAMPLES:
        raise NotExaminable(f"at least {FEWEST_SAMPLES} independent samples are needed")
    parts = min(PARTS, size // 2)
    if patient.seconds_left() < parts * rehearsal.seconds:
        raise NotExaminable(f"{parts} passes of about {rehearsal.seconds:.2g} s were needed, {max(0.0, patient.seconds_left()):.1f} s were left")
    small = size // parts
    products = part_products(patient, parts, small)
    found = noise_scale(products, small)
    numbers = {"noise_scale": found.scale, "error": found.error, "signal": found.signal, "noise": found.noise, "batch": float(size)}
    if not math.isfinite(found.scale) or found.error > found.scale:
        yield Outcome(
            "passed",
            f"the gradient of {size} samples is mostly noise: too few to measure it, so a larger batch would still pay",
            values={"batch": float(size), "signal": found.signal, "noise": found.noise},
        )
        return
    suggested = 2 ** round(math.log2(max(1.0, found.scale)))
    numbers["suggested"] = float(suggested)
    yield Outcome(
        "passed",
        f"gradient noise scale {found.scale:.2g} ± {found.error:.1g} samples: batches above about {suggested} gain little at the start, "
        f"larger ones pay as the loss falls; yours has {size}",
        values=numbers,
    )


def part_products(patient: Patient, parts: int, small: int) -> Tensor:
    """Inner products of the gradients of `parts` parts of the batch with `small` samples each (parts, parts).

    Raises:
        NotExaminable: the loss is no mean over samples.
    """
    batch = patient.batch
    pieces: list[Batch] = [batch.part(index * small, small) for index in range(parts)]
    together = batch.part(0, parts * small)
    gradients, losses = [], []
    for piece in (*pieces, together):
        seed_generators(0)
        trial = patient.trial().without_dropout()
        loss = loss_for(trial, piece)
        losses.append(float(loss.detach()))
        found = torch.autograd.grad(loss, list(trial.parameters().values()), allow_unused=True)
        if piece is not together:
            gradients.append([None if g is None else (g.to_dense() if g.layout != torch.strided else g) for g in found])
    mean, whole = sum(losses[:-1]) / parts, losses[-1]
    if abs(mean - whole) > 0.2 * max(abs(mean), abs(whole)) + 1e-6:
        raise NotExaminable(f"the loss is no mean over samples: parts of the batch have {mean:.3g} on average, the whole {whole:.3g}")
    products = torch.zeros(parts, parts, dtype=torch.float64)
    for column in zip(*gradients, strict=True):
        known = [g.flatten().float() for g in column if g is not None]
        if len(known) == parts:
            stacked = torch.stack(known)
            products += (stacked @ stacked.T).double().cpu()
    return products


def noise_scale(products: Tensor, small: int) -> NoiseScale:
    """The simple noise scale tr(Σ) / |G|² from the Gram matrix of part gradients of `small` samples each.

    With |g_small|² the mean squared length of the parts and |g_big|² that of their mean (B = parts · small samples):
    |G|² = (B |g_big|² - b |g_small|²) / (B - b) and tr(Σ) = (|g_small|² - |g_big|²) / (1/b - 1/B), both unbiased.
    The error is that of the jackknife over the parts. The scale is infinite where |G|² comes out below zero.
    """
    whole = _ratio(products, small)
    count = products.shape[0]
    left_out = []
    for index in range(count):
        keep = [i for i in range(count) if i != index]
        left_out.append(_ratio(products[keep][:, keep], small)[2])
    mean = sum(left_out) / count
    error = math.sqrt((count - 1) / count * sum((value - mean) ** 2 for value in left_out)) if math.isfinite(mean) else math.inf
    return NoiseScale(*whole, error)


def _ratio(products: Tensor, small: int) -> tuple[float, float, float]:
    count = products.shape[0]
    big = count * small
    square_small = float(products.diagonal().mean())
    square_big = float(products.mean())
    signal = (big * square_big - small * square_small) / (big - small)
    noise = (square_small - square_big) / (1 / small - 1 / big)
    return signal, noise, noise / signal if signal > 0 else math.inf
