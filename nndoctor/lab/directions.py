"""Directions through weights along which a loss surface is drawn: random and normalised, or to other weights."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from nndoctor.lab.curvature import hessian_eigenpairs
from nndoctor.lab.patient import Patient
from nndoctor.lab.points import Place, Weights, current_weights, unflat, weights_at
from nndoctor.lab.progress import Progress, silent

Normalisation: TypeAlias = Literal["filter", "layer", "none"]

Vectors: TypeAlias = Literal["still", "elementwise", "random"]


def random_directions(
    model: nn.Module,
    count: int = 2,
    *,
    seed: int = 0,
    normalise: Normalisation = "filter",
    vectors: Vectors = "still",
) -> tuple[dict[str, Tensor], ...]:
    """Gaussian directions, by default each filter as long as the model's own filter.

    Without that, a surface shows the scale of the weights: layers before a normalisation can be scaled at will without
    any change of the function (Li et al. 2018, Visualizing the loss landscape of neural nets, arXiv 1712.09913).

    Args:
        seed: of the draw; the global generators are left alone.
        normalise: ``filter`` (every row along the first dimension), ``layer`` (every tensor), or ``none``.
        vectors: biases and weights of norms stay where they are (``still``), move by plus or minus their own size
            (``elementwise``, as nnvis has it), or are treated as one ``random`` filter.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for _ in range(count):
        direction = {}
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32).to(parameter)
            direction[name] = _scaled(noise, parameter.detach(), normalise, vectors)
        drawn.append(direction)
    return tuple(drawn)


def direction_to(patient: Patient, place: Place) -> dict[str, Tensor]:
    """From the patient's weights to those at `place`: 0 is here, 1 is there."""
    there = weights_at(patient, place)
    return {name: there[name] - parameter.detach() for name, parameter in patient.model.named_parameters()}


def sharpest_directions(
    patient: Patient, count: int = 2, *, progress: Progress = silent
) -> tuple[tuple[dict[str, Tensor], ...], tuple[float, ...]]:
    """Unit eigenvectors of the Hessian with the largest eigenvalues by magnitude, and those eigenvalues."""
    found = hessian_eigenpairs(patient, count, progress=progress)
    names = [name for name, parameter in patient.model.named_parameters() if parameter.requires_grad]
    like = current_weights(patient.model)
    total = sum(like[name].numel() for name in names)
    directions = tuple(unflat(vector[:total].to(like[names[0]]), like, names) for vector in found.vectors)
    return directions, found.values


def length(direction: Weights) -> float:
    """Euclidean length over all tensors."""
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in direction.values()))


def _scaled(noise: Tensor, weight: Tensor, normalise: Normalisation, vectors: Vectors) -> Tensor:
    if weight.dim() < 2:
        if vectors == "still":
            return torch.zeros_like(weight)
        if vectors == "elementwise":
            return noise.sign() * weight.abs()
    if normalise == "none":
        return noise
    if normalise == "layer" or weight.dim() < 2:
        return torch.mul(noise, weight.norm() / noise.norm().clamp_min(1e-12))
    rows = tuple(range(1, weight.dim()))
    own, drawn = (torch.linalg.vector_norm(t, dim=rows, keepdim=True) for t in (weight, noise))
    return torch.mul(noise, own / drawn.clamp_min(1e-12))  # (filters, ...)
