"""What the layers of a model represent: how many dimensions they fill, how alike they are, and when they stop changing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from nndoctor.lab.patient import Patient, Subject
from nndoctor.lab.progress import Progress, silent
from nndoctor.lab.results import Result
from nndoctor.lab.similarity import Dimension, Matrix, debiased_cka, dimension, gram, pwcca, svcca
from nndoctor.lab.sources import load_weights
from nndoctor.lab.workbook import Workbook

Measure: TypeAlias = Literal["svcca", "pwcca", "cka"]
MEASURES: tuple[Measure, ...] = ("svcca", "pwcca", "cka")

ROWS = 2000
"""Rows kept of each layer; several times the units of most layers, and small enough to keep all layers."""
CHANNELS_SECOND: tuple[type[nn.Module], ...] = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
)
CHANNELS_LAST: tuple[type[nn.Module], ...] = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.MultiheadAttention, nn.RNNBase)


@dataclass(frozen=True)
class Activations:
    """What one layer makes of the batches.

    Args:
        name, kind: of the layer, and its class.
        rows: one for each sample, and for each of some positions where it has positions (n, units).
        grams: inner products of whole samples, batch by batch.
    """

    name: str
    kind: str
    rows: Matrix
    grams: tuple[Matrix, ...]


@dataclass(frozen=True)
class LayerDimension:
    """How many dimensions one layer fills; see :class:`~nndoctor.lab.similarity.Dimension`."""

    name: str
    kind: str
    dimension: Dimension


@dataclass(frozen=True)
class Representation(Result):
    """What :func:`representation` finds.

    Args:
        samples: in the batches.
        share: of the variance that the intrinsic dimension holds.
        layers: in order of execution.
        similarity: debiased linear CKA of each layer with each (layers, layers); NaN where a layer is constant.
        seconds: taken.
    """

    samples: int
    share: float
    layers: tuple[LayerDimension, ...]
    similarity: tuple[tuple[float, ...], ...]
    seconds: float


@dataclass(frozen=True)
class SelfSimilarity(Result):
    """How alike each layer is to itself one checkpoint earlier, and to itself at the end.

    Args:
        checkpoints: by name, in order.
        layers: by name, in order of execution.
        to_previous: for each measure, one row for each checkpoint but the first (checkpoints - 1, layers).
        to_last: the same, of each checkpoint but the last with the last.
        seconds: taken.
    """

    checkpoints: tuple[str, ...]
    layers: tuple[str, ...]
    to_previous: Mapping[str, tuple[tuple[float, ...], ...]]
    to_last: Mapping[str, tuple[tuple[float, ...], ...]]
    seconds: float

    def converged(self, threshold: float = 0.99, measure: Measure = "svcca") -> dict[str, str | None]:
        """For each layer the first checkpoint from which on it stays as similar to its predecessor as `threshold`."""
        found: dict[str, str | None] = {}
        table = self.to_previous[measure]
        for column, layer in enumerate(self.layers):
            first = len(table)
            while first > 0 and table[first - 1][column] >= threshold:
                first -= 1
            found[layer] = self.checkpoints[first + 1] if first < len(table) else None
        return found


def representation(
    patient: Patient, *, layers: Sequence[str] = (), share: float = 0.99, progress: Progress = silent
) -> Representation:
    """Intrinsic dimension and saturation of each layer, and how alike the layers are to each other.

    Args:
        layers: names or patterns such as ``block*.conv?``; by default every layer that owns parameters.
        share: of the variance that counts; 0.99 as published.

    Raises:
        ValueError: no layer is called so.
    """
    started = time.perf_counter()
    with patient.examined() as subject:
        found = activations(subject, layers=layers, progress=progress)
    rows = []
    for number, layer in enumerate(found):
        rows.append(LayerDimension(layer.name, layer.kind, dimension(layer.rows, share)))
        progress("dimensions", number + 1, len(found))
    return Representation(
        samples=patient.samples,
        share=share,
        layers=tuple(rows),
        similarity=similarity_matrix(found, found),
        seconds=time.perf_counter() - started,
    )


def compare(first: Patient, second: Patient, *, layers: Sequence[str] = ()) -> tuple[tuple[float, ...], ...]:
    """Debiased linear CKA of each layer of one model with each of another, on the batches of the first."""
    with first.examined() as subject:
        one = activations(subject, layers=layers)
    with Patient(second.model, second.loss_function, first.batches).examined() as subject:
        two = activations(subject, layers=layers)
    return similarity_matrix(one, two)


def self_similarity(
    patient: Patient,
    checkpoints: Sequence[Path | Mapping[str, Tensor]],
    *,
    layers: Sequence[str] = (),
    work: Path | str | None = None,
    progress: Progress = silent,
) -> SelfSimilarity:
    """How alike each layer is to itself at the checkpoint before, and at the last one, on the patient's batches.

    Args:
        checkpoints: files with state dicts, or state dicts, in order.
        layers: names or patterns; by default every layer that owns parameters.
        work: folder for finished comparisons; the same call goes on from them after it was killed.

    Raises:
        ValueError: there are fewer than two checkpoints.
    """
    if len(checkpoints) < 2:
        raise ValueError(f"expected at least two checkpoints, got {len(checkpoints)}")
    started = time.perf_counter()
    names = tuple(place.stem if isinstance(place, Path) else str(number) for number, place in enumerate(checkpoints))
    book = Workbook.of(work, "self-similarity", patient, tuple(layers), tuple(map(str, names)))
    last = activations_at(patient, checkpoints[-1], layers)
    previous: tuple[Activations, ...] | None = None
    steps: list[dict[str, list[float]]] = []
    ends: list[dict[str, list[float]]] = []
    for number, place in enumerate(checkpoints):
        is_known = f"previous{number}" in book and f"last{number}" in book and f"previous{number + 1}" in book
        present = None if is_known else activations_at(patient, place, layers)
        if number:
            steps.append(book.done(f"previous{number}", partial(_pairwise, previous, present)))
        if number < len(checkpoints) - 1:
            ends.append(book.done(f"last{number}", partial(_pairwise, present, last)))
        previous = present
        progress("checkpoints", number + 1, len(checkpoints))
    return SelfSimilarity(
        checkpoints=names,
        layers=tuple(layer.name for layer in last),
        to_previous={measure: tuple(tuple(step[measure]) for step in steps) for measure in MEASURES},
        to_last={measure: tuple(tuple(end[measure]) for end in ends) for measure in MEASURES},
        seconds=time.perf_counter() - started,
    )


def activations_at(
    patient: Patient, weights: Path | Mapping[str, Tensor] | None, layers: Sequence[str] = ()
) -> tuple[Activations, ...]:
    """Activations of a copy with the given weights; None: as they are now."""
    with patient.examined() as subject:
        if isinstance(weights, Path):
            load_weights(subject.model, weights)
        elif weights is not None:
            subject.model.load_state_dict(dict(weights))
        return activations(subject, layers=layers)


@torch.no_grad()
def activations(
    subject: Subject, *, layers: Sequence[str] = (), rows: int = ROWS, progress: Progress = silent
) -> tuple[Activations, ...]:
    """What the layers make of the subject's batches, in order of execution; constant memory in the number of positions.

    A layer that is called several times counts with its last call of each batch.

    Raises:
        ValueError: no layer is called so.
    """
    chosen = {name: module for name, module in subject.model.named_modules() if _is_wanted(name, module, layers)}
    if not chosen:
        raise ValueError(f"no layer is called {', '.join(layers)}" if layers else "no layer of the model has parameters")
    held: dict[str, Tensor] = {}
    order = _Order()
    kept: dict[str, list[Matrix]] = {}
    grams: dict[str, list[Matrix]] = {}
    by_batch = max(1, rows // max(1, len(subject.batches)))
    with ExitStack() as hooks:
        for name, module in chosen.items():
            hooks.callback(module.register_forward_hook(_keeping(held, name, order)).remove)
        for number, batch in enumerate(subject.batches):
            held.clear()
            subject.outputs(batch)
            for name, output in held.items():
                whole = output.movedim(batch.axis, 0) if batch.axis < output.dim() else output
                kept.setdefault(name, []).append(_rows(whole, order.channels_second[name], by_batch))
                grams.setdefault(name, []).append(gram(whole.flatten(1).double().cpu().numpy()))
            progress("activations", number + 1, len(subject.batches))
    return tuple(
        Activations(name, type(chosen[name]).__name__, np.concatenate(kept[name]), tuple(grams[name]))
        for name in order.names
        if len({part.shape[1] for part in kept[name]}) == 1
    )


def similarity_matrix(first: Sequence[Activations], second: Sequence[Activations]) -> tuple[tuple[float, ...], ...]:
    """Debiased linear CKA of each layer in `first` (rows) with each in `second` (columns)."""
    return tuple(tuple(_cka(one, two) for two in second) for one in first)


def similarity(first: Activations, second: Activations, measure: Measure) -> float:
    """How alike two layers are on the same batches, by one of the measures; NaN where it cannot be told."""
    if measure == "cka":
        return _cka(first, second)
    return (svcca if measure == "svcca" else pwcca)(first.rows, second.rows)


@dataclass
class _Order:
    """Layers in the order of their first calls, and where each has its channels."""

    names: list[str]
    channels_second: dict[str, bool]

    def __init__(self) -> None:
        self.names, self.channels_second = [], {}


def _is_wanted(name: str, module: nn.Module, layers: Sequence[str]) -> bool:
    if layers:
        return any(fnmatchcase(name, pattern) for pattern in layers)
    is_owner = next(module.parameters(recurse=False), None) is not None
    return bool(name) and is_owner


def _keeping(held: dict[str, Tensor], name: str, order: _Order) -> Callable[..., None]:
    def keep(module: nn.Module, args: Any, output: Any) -> None:
        found = output[0] if isinstance(output, tuple) and output else output
        if not isinstance(found, Tensor) or not found.is_floating_point() or found.dim() < 2:
            return
        if name not in order.channels_second:
            order.names.append(name)
            order.channels_second[name] = _has_channels_second(module, found, order)
        held[name] = found.detach()

    return keep


def _has_channels_second(module: nn.Module, output: Tensor, order: _Order) -> bool:
    """Images have their channels second, sequences last; an activation function follows the layer before it."""
    if isinstance(module, CHANNELS_SECOND):
        return True
    if isinstance(module, CHANNELS_LAST):
        return False
    before = order.channels_second.get(order.names[-2]) if len(order.names) > 1 else None
    return output.dim() > 3 if before is None else before and output.dim() > 2


def _rows(output: Tensor, channels_second: bool, count: int) -> Matrix:
    """At most `count` rows (n, units), evenly over samples and positions, the same ones every time."""
    moved = output.movedim(1, -1) if channels_second and output.dim() > 2 else output
    table = moved.reshape(-1, moved.shape[-1])
    if table.shape[0] > count:
        table = table[torch.linspace(0, table.shape[0] - 1, count, device=table.device).round().long()]
    return np.asarray(table.double().cpu().numpy(), dtype=np.float64)


def _cka(first: Activations, second: Activations) -> float:
    if [g.shape for g in first.grams] != [g.shape for g in second.grams] or max(len(g) for g in first.grams) < 4:
        return math.nan
    return debiased_cka(first.grams, second.grams)


def _pairwise(first: tuple[Activations, ...] | None, second: tuple[Activations, ...] | None) -> dict[str, list[float]]:
    """Every measure for every layer of two checkpoints."""
    assert first is not None
    assert second is not None
    return {m: [similarity(one, two, m) for one, two in zip(first, second, strict=True)] for m in MEASURES}
