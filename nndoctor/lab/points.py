"""Points in the space of weights: reading them, mixing them, putting a copy of the model there, measuring distances."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from nndoctor.examinations.patient import BATCH_NORMS
from nndoctor.examinations.untouched import copied
from nndoctor.lab.patient import Patient, Subject
from nndoctor.lab.sources import load_weights

Weights: TypeAlias = Mapping[str, Tensor]
"""Parameters and buffers by name, as in a state dict."""

Place: TypeAlias = nn.Module | Weights | Path | str
"""Where weights are: a model, a state dict, or a checkpoint file."""


def current_weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers of `model` as they are; tied weights once."""
    kept = model.state_dict(keep_vars=True)
    return {name: tensor.detach() for name, tensor in _held(model).items() if name in kept}


def weights_at(patient: Patient, place: Place) -> dict[str, Tensor]:
    """A copy of the weights at `place`, on the device of the patient's model.

    Raises:
        SourceError: a checkpoint cannot be read, or does not fit the model.
        ValueError: names or shapes are not those of the patient's model.
    """
    own = current_weights(patient.model)
    if isinstance(place, (Path, str)):
        (twin,) = copied(patient.model)
        load_weights(twin, Path(place))
        return current_weights(twin)
    found = current_weights(place) if isinstance(place, nn.Module) else dict(place)
    missing = [name for name in own if name not in found]
    wrong = [name for name in own if name in found and found[name].shape != own[name].shape]
    if missing or wrong:
        named = (
            f"without {', '.join(missing[:3])}"
            if missing
            else f"with {wrong[0]} of shape {tuple(found[wrong[0]].shape)}"
        )
        raise ValueError(
            f"expected weights of the {len(own)} tensors of {type(patient.model).__name__}, got some {named}"
        )
    return {name: found[name].detach().to(own[name].device, own[name].dtype, copy=True) for name in own}


def digest(*points: Weights) -> str:
    """A few letters that tell these weights from others."""
    mixed = hashlib.sha256()
    for point in points:
        for name, tensor in point.items():
            raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else None
            mixed.update(name.encode() + (raw.numpy().tobytes() if raw is not None else b""))
    return mixed.hexdigest()[:12]


def blended(alpha: float, first: Tensor, last: Tensor, middle: Tensor | None = None) -> Tensor:
    """The tensor `alpha` of the way from `first` to `last`: on the line, or on the parabola that is `middle` half way.

    Exactly, bit by bit, `first` at 0, `last` at 1, and `middle` at 0.5. Whole numbers are those of the nearer end.
    """
    if not first.is_floating_point():
        return last if alpha >= 0.5 else first
    if middle is None:
        return (1 - alpha) * first + alpha * last
    return 2 * (alpha - 0.5) * (alpha - 1) * first + 4 * alpha * (1 - alpha) * middle + 2 * alpha * (alpha - 0.5) * last


@torch.no_grad()
def put(subject: Subject, weights: Weights) -> None:
    """Give the subject's model these weights; what is not among them stays."""
    held = _held(subject.model)
    for name, tensor in weights.items():
        held[name].copy_(tensor)


@torch.no_grad()
def recompute_norms(subject: Subject) -> None:
    """Running statistics of every BatchNorm anew, as the plain mean over the subject's batches; all else is in eval mode.

    Away from the weights that they were gathered with, running statistics say nothing about what flows through the model.
    """
    norms = [module for module in subject.modules() if isinstance(module, BATCH_NORMS) and module.track_running_stats]
    if not norms:
        return
    modes = [(norm, norm.training, norm.momentum) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
        norm.momentum = None  # the plain mean over batches
    for batch in subject.batches:
        subject.outputs(batch)
    for norm, training, momentum in modes:
        norm.train(training)
        norm.momentum = momentum


def parameter_layers(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Every module that holds parameters of its own, with their names, in order; what the root holds is ``(root)``."""
    layers: dict[str, list[str]] = {}
    for name, _ in model.named_parameters():
        layers.setdefault(name.rpartition(".")[0] or "(root)", []).append(name)
    return {layer: tuple(names) for layer, names in layers.items()}


def tensors_of_layer(model: nn.Module, layer: str) -> tuple[str, ...]:
    """Names of parameters and persistent buffers of the module called `layer` and of all below it.

    Raises:
        ValueError: there is no such module, or nothing in it.
    """
    names = current_weights(model)
    found = (
        tuple(n for n in names if "." not in n)
        if layer == "(root)"
        else tuple(n for n in names if n.startswith(f"{layer}."))
    )
    if not found:
        raise ValueError(f"no layer {layer!r} with weights; there are {', '.join(parameter_layers(model))}")
    return found


def distance(first: Weights, last: Weights, names: Iterable[str]) -> tuple[float, float]:
    """Euclidean distance over the parameters called `names`, and its share of the length of `first` (0 where that is 0)."""
    moved = start = 0.0
    for name in names:
        if first[name].is_floating_point():
            moved += float((last[name].double() - first[name].double()).square().sum())
            start += float(first[name].double().square().sum())
    return moved**0.5, (moved / start) ** 0.5 if start else 0.0


def flat(weights: Weights, names: Sequence[str]) -> Tensor:
    """The tensors called `names` as one float32 vector."""
    return torch.cat([weights[name].detach().reshape(-1).float() for name in names])


def unflat(vector: Tensor, like: Weights, names: Sequence[str]) -> dict[str, Tensor]:
    """The inverse of :func:`flat`: pieces of `vector` with the shapes of `like`."""
    pieces = torch.split(vector, [like[name].numel() for name in names])
    return {name: piece.view(like[name].shape) for name, piece in zip(names, pieces, strict=True)}


def _held(model: nn.Module) -> dict[str, Any]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
