"""Straight and curved paths from the initial weights to the trained ones, and the loss along them.

After Nemcova, *Neural network training progress visualization*: linear and quadratic paths of the whole model, of one layer,
of a single parameter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from nndoctor.lab.patient import Patient, Subject
from nndoctor.lab.points import (
    Place,
    Weights,
    blended,
    current_weights,
    digest,
    distance,
    parameter_layers,
    put,
    recompute_norms,
    tensors_of_layer,
    weights_at,
)
from nndoctor.lab.progress import Progress, silent
from nndoctor.lab.results import Result
from nndoctor.lab.workbook import Workbook

PathKind: TypeAlias = Literal["linear", "quadratic", "real"]

ALPHAS = tuple(index / 20 for index in range(21))
"""From the initial weights (0) to the trained ones (1); holds 0, 0.5 and 1."""

WIDE_ALPHAS = tuple(index / 20 for index in range(-10, 31))
"""For single parameters: half a path further at both ends."""


@dataclass(frozen=True)
class PathCurve(Result):
    """Loss and accuracy along one path.

    Args:
        kind: ``linear``, ``quadratic``, or ``real`` where the optimizer went itself.
        target: what moves: ``model``, a layer's name, or one parameter as ``fc1.weight[3, 5]``.
        alphas: 0 is the initial point, 1 the trained one.
        losses, accuracies: at each; accuracy is None where targets are no class labels.
        travelled: distance between the ends; `relative`: as a share of the length of the initial weights.
    """

    kind: PathKind
    target: str
    alphas: tuple[float, ...]
    losses: tuple[float, ...]
    accuracies: tuple[float | None, ...]
    travelled: float
    relative: float

    @property
    def barrier(self) -> float:
        """How far the loss rises above the straight line between its values at 0 and 1; 0 where it does not.

        NaN where the path does not hold both ends.
        """
        if 0.0 not in self.alphas or 1.0 not in self.alphas:
            return math.nan
        start, end = self.losses[self.alphas.index(0.0)], self.losses[self.alphas.index(1.0)]
        between = [(a, loss) for a, loss in zip(self.alphas, self.losses, strict=True) if 0 <= a <= 1]
        return max(loss - ((1 - a) * start + a * end) for a, loss in between)


@dataclass(frozen=True)
class Paths(Result):
    """Curves of several targets over the same grid, those that belong together next to each other."""

    curves: tuple[PathCurve, ...]

    def of(self, target: str, kind: PathKind = "linear") -> PathCurve:
        """The curve of `target`. Raises KeyError with those there are."""
        for curve in self.curves:
            if (curve.target, curve.kind) == (target, kind):
                return curve
        raise KeyError(
            f"no {kind} path of {target!r}; there are {', '.join(f'{c.kind} of {c.target}' for c in self.curves)}"
        )


@dataclass(frozen=True)
class _Ends:
    """Where a path begins, ends, and, if it is curved, comes through half way."""

    first: Weights
    last: Weights
    middle: Weights | None

    def moved(self, alpha: float, names: Sequence[str], curved: bool) -> dict[str, Tensor]:
        middle = self.middle if curved else None
        return {
            name: blended(alpha, self.first[name], self.last[name], None if middle is None else middle[name])
            for name in names
        }

    def moved_element(self, alpha: float, name: str, index: tuple[int, ...], curved: bool) -> dict[str, Tensor]:
        """The trained tensor with one element somewhere else."""
        tensor = self.last[name].clone()
        tensor[index] = self.moved(alpha, (name,), curved)[name][index]
        return {name: tensor}


@dataclass(frozen=True)
class _Survey:
    """What all curves of one examination share."""

    subject: Subject
    ends: _Ends
    alphas: tuple[float, ...]
    recompute: bool
    workbook: Workbook
    progress: Progress

    def curve(
        self, kind: PathKind, target: str, at: Callable[[float], Weights], ends: tuple[float, float], task: str
    ) -> PathCurve:
        points: list[Any] = []
        for index, alpha in enumerate(self.alphas):
            key = f"{kind} {target} {alpha!r}"
            if key not in self.workbook:
                self.workbook.put(key, self._evaluated(at(alpha)))
            points.append(self.workbook.get(key))
            self.progress(task, index + 1, len(self.alphas))
        losses, accuracies = zip(*points, strict=True)
        return PathCurve(kind, target, self.alphas, losses, accuracies, *ends)

    def _evaluated(self, moved: Weights) -> list[float | None]:
        put(self.subject, self.ends.last)
        put(self.subject, moved)
        if self.recompute:
            recompute_norms(self.subject)
        found = self.subject.evaluate()
        return [found.loss, found.accuracy]


def model_paths(
    patient: Patient,
    first: Place,
    *,
    middle: Place | None = None,
    alphas: Sequence[float] = ALPHAS,
    recompute_batchnorm: bool = False,
    work: Path | str | None = None,
    progress: Progress = silent,
) -> Paths:
    """Loss on the way of all weights from `first` to those of the patient's model.

    Args:
        first: the initial weights, or another minimum.
        middle: weights half way through the training (step ``T // 2``); with them there is a quadratic path, too.
        alphas: where to look; 0 is `first`, 1 the patient's model. Both are met exactly, and `middle` at 0.5.
        recompute_batchnorm: gather the running statistics of BatchNorm anew at every point; else buffers move as weights do.
        work: keep finished points there; a killed examination goes on from them.
    """
    with _survey(patient, first, middle, alphas, recompute_batchnorm, work, progress) as survey:
        names = tuple(survey.ends.last)
        ends = distance(survey.ends.first, survey.ends.last, [n for n, _ in patient.model.named_parameters()])
        return Paths(tuple(_both(survey, "model", names, ends)))


def layer_paths(
    patient: Patient,
    first: Place,
    *,
    middle: Place | None = None,
    layers: Sequence[str] | None = None,
    alphas: Sequence[float] = ALPHAS,
    recompute_batchnorm: bool = False,
    work: Path | str | None = None,
    progress: Progress = silent,
) -> Paths:
    """As :func:`model_paths`, one layer at a time while all others keep their trained weights.

    Args:
        layers: names of modules; default every module that holds parameters of its own.
    """
    wanted = tuple(parameter_layers(patient.model) if layers is None else layers)
    own = set(dict(patient.model.named_parameters()))
    with _survey(patient, first, middle, alphas, recompute_batchnorm, work, progress) as survey:
        curves: list[PathCurve] = []
        for layer in wanted:
            names = tensors_of_layer(patient.model, layer)
            ends = distance(survey.ends.first, survey.ends.last, [name for name in names if name in own])
            curves += _both(survey, layer, names, ends)
        return Paths(tuple(curves))


def parameter_paths(
    patient: Patient,
    first: Place,
    *,
    middle: Place | None = None,
    elements: Sequence[tuple[str, tuple[int, ...]]] | int = 20,
    alphas: Sequence[float] = WIDE_ALPHAS,
    recompute_batchnorm: bool = False,
    seed: int = 0,
    work: Path | str | None = None,
    progress: Progress = silent,
) -> Paths:
    """As :func:`model_paths`, one single number of one tensor at a time.

    Args:
        elements: (name of the tensor, index in it) of each, or how many to draw in every layer.
        seed: of the drawing.
    """
    chosen = drawn_elements(patient, elements, seed) if isinstance(elements, int) else tuple(elements)
    with _survey(patient, first, middle, alphas, recompute_batchnorm, work, progress) as survey:
        curves = []
        for name, index in chosen:
            target = f"{name}{list(index)}"
            start, end = float(survey.ends.first[name][index]), float(survey.ends.last[name][index])
            ends = (abs(end - start), abs(end - start) / abs(start) if start else 0.0)
            for kind, curved in _kinds(survey.ends):
                at = _element_mover(survey.ends, name, index, curved)
                curves.append(survey.curve(kind, target, at, ends, f"{kind} path of {target}"))
        return Paths(tuple(curves))


def drawn_elements(patient: Patient, count: int, seed: int = 0) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """`count` random elements of the weights of every layer (all of them where there are no more)."""
    generator = torch.Generator().manual_seed(seed)
    drawn: list[tuple[str, tuple[int, ...]]] = []
    parameters = dict(patient.model.named_parameters())
    for names in parameter_layers(patient.model).values():
        sizes = [parameters[name].numel() for name in names]
        for number in torch.randperm(sum(sizes), generator=generator)[:count].tolist():
            for name, size in zip(names, sizes, strict=True):
                if number < size:
                    drawn.append((name, _unravelled(number, tuple(parameters[name].shape))))
                    break
                number -= size
    return tuple(drawn)


def real_path(
    patient: Patient,
    checkpoints: Sequence[Place],
    *,
    steps: Sequence[int] | None = None,
    work: Path | str | None = None,
    progress: Progress = silent,
) -> PathCurve:
    """Loss at the checkpoints that the optimizer left behind, from the first (0) to the last (1).

    Args:
        steps: of each checkpoint; default evenly spread.
    """
    count = len(checkpoints)
    if count < 2:
        raise ValueError(f"expected at least two checkpoints, got {count}")
    taken = list(range(count)) if steps is None else list(steps)
    alphas = tuple((step - taken[0]) / (taken[-1] - taken[0]) for step in taken)
    first, last = weights_at(patient, checkpoints[0]), weights_at(patient, checkpoints[-1])
    workbook = Workbook.of(work, "real-path", patient, digest(first, last), count)
    points: list[Any] = []
    with patient.examined() as subject:
        for index, place in enumerate(checkpoints):
            if str(index) not in workbook:
                put(subject, weights_at(patient, place))
                found = subject.evaluate()
                workbook.put(str(index), [found.loss, found.accuracy])
            points.append(workbook.get(str(index)))
            progress("real path", index + 1, count)
    losses, accuracies = zip(*points, strict=True)
    names = [name for name, _ in patient.model.named_parameters()]
    return PathCurve("real", "model", alphas, losses, accuracies, *distance(first, last, names))


def travelled_by_layer(patient: Patient, first: Place) -> Mapping[str, tuple[float, float]]:
    """Distance of every layer's parameters from `first`, and as a share of their length there.

    Compare layers by the share: with a normalisation behind it, a layer's length means nothing.
    """
    start, last = weights_at(patient, first), current_weights(patient.model)
    return {layer: distance(start, last, names) for layer, names in parameter_layers(patient.model).items()}


class _survey:
    """The subject of several curves, the ends of their paths, and where finished points are kept."""

    def __init__(
        self,
        patient: Patient,
        first: Place,
        middle: Place | None,
        alphas: Sequence[float],
        recompute: bool,
        work: Path | str | None,
        progress: Progress,
    ) -> None:
        if not alphas:
            raise ValueError("alphas: expected at least one, got none")
        last = {name: tensor.clone() for name, tensor in current_weights(patient.model).items()}
        ends = _Ends(weights_at(patient, first), last, None if middle is None else weights_at(patient, middle))
        mark = digest(ends.first, *(() if ends.middle is None else (ends.middle,)))
        self._settings = (ends, tuple(alphas), recompute, Workbook.of(work, "path", patient, mark, recompute), progress)
        self._context = patient.examined()

    def __enter__(self) -> _Survey:
        return _Survey(self._context.__enter__(), *self._settings)

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)


def _kinds(ends: _Ends) -> tuple[tuple[PathKind, bool], ...]:
    return (("linear", False),) if ends.middle is None else (("linear", False), ("quadratic", True))


def _both(survey: _Survey, target: str, names: Sequence[str], ends: tuple[float, float]) -> list[PathCurve]:
    """The linear path of the tensors called `names`, and the quadratic one where the middle is known."""
    curves = []
    for kind, curved in _kinds(survey.ends):

        def at(alpha: float, curved: bool = curved) -> Weights:
            return survey.ends.moved(alpha, names, curved)

        curves.append(survey.curve(kind, target, at, ends, f"{kind} path of {target}"))
    return curves


def _element_mover(ends: _Ends, name: str, index: tuple[int, ...], curved: bool) -> Callable[[float], Weights]:
    return lambda alpha: ends.moved_element(alpha, name, index, curved)


def _unravelled(number: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    index: list[int] = []
    for length in reversed(shape):
        number, place = divmod(number, length)
        index.append(place)
    return tuple(reversed(index))
