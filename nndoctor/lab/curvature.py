"""Curvature of the loss on fixed batches: leading eigenvalues of the Hessian, its trace, density and layers, and sharpness.

Every product with the Hessian is exact: two backward passes, no finite differences. The batches are always the same ones and the
copy is in evaluation mode, so the operator is one fixed symmetric matrix; without that no Krylov method converges.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nndoctor.examinations.patient import NotExaminable
from nndoctor.lab.gradients import (
    GradientNoise,
    StepLength,
    flat,
    flat_gradients,
    gradient_noise,
    mean_gradient,
    step_length,
)
from nndoctor.lab.patient import Patient, Subject, sample_count
from nndoctor.lab.progress import Progress, silent
from nndoctor.lab.results import Result
from nndoctor.lab.spectrum import (
    Density,
    Eigenpairs,
    Operator,
    TraceEstimate,
    Which,
    hutchinson_trace,
    lanczos_eigenpairs,
    spectral_density,
)
from nndoctor.lab.workbook import Workbook

GRAPH_BYTES = 2 * 1024**3
"""Memory that the graphs of batches may take between products."""

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

PresetName: TypeAlias = Literal["economy", "business", "full"]


@dataclass(frozen=True)
class Preset:
    """What is measured.

    Args:
        eigenvalues: of the whole Hessian.
        probes: random vectors for the trace, at most.
        trace_tolerance: standard error, as a share of the trace, that is good enough.
        density_probes: random vectors for the spectral density.
        layers: whether the leading eigenvalue of each layer's own block is searched.
        rise: whether the loss is climbed, within a small ball.
    """

    eigenvalues: int = 0
    probes: int = 0
    trace_tolerance: float = 0.05
    density_probes: int = 0
    layers: bool = False
    rise: bool = False


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "economy": Preset(),
        "business": Preset(eigenvalues=1, probes=32),
        "full": Preset(eigenvalues=5, probes=100, trace_tolerance=0.02, density_probes=4, layers=True, rise=True),
    }
)
"""Economy looks at gradients only (noise, tests, step length); business adds the leading eigenvalue and the trace by layer;
full adds five eigenvalues, the density, the leading eigenvalue of each layer, and the rise of the loss nearby."""


@dataclass(frozen=True)
class LayerCurvature:
    """The diagonal block of the Hessian that belongs to one layer.

    Args:
        name: of the layer, or of the parameter where the model itself owns it.
        parameters: in the layer.
        trace, trace_error: of the block; None where not measured.
        eigenvalue, residual: the block's leading one by magnitude; None where not measured.
    """

    name: str
    parameters: int
    trace: float | None = None
    trace_error: float | None = None
    eigenvalue: float | None = None
    residual: float | None = None


@dataclass(frozen=True)
class Rise(Result):
    """The highest loss found within a ball around the weights, by projected gradient ascent.

    Args:
        radius: of the ball; 0.05 is that of sharpness-aware minimisation (https://arxiv.org/abs/2010.01412).
        loss: at the weights.
        worst: the highest found within the ball.
    """

    radius: float
    loss: float
    worst: float

    @property
    def rise(self) -> float:
        return self.worst - self.loss


@dataclass(frozen=True)
class Curvature(Result):
    """What :func:`curvature` finds; parts that the preset leaves out are None or empty.

    Args:
        preset: by name.
        parameters, samples: that train, and that are in the batches.
        loss: mean over the samples.
        noise: of the gradient; None where samples cannot be taken apart, `not_examined` says why.
        step: the gauge for a step of gradient descent with the learning rate that was given.
        eigen: leading eigenpairs, by magnitude.
        trace: of the Hessian.
        density: of its eigenvalues.
        layers: diagonal blocks.
        rise: of the loss nearby.
        not_examined: part and reason.
        seconds: taken.
    """

    preset: str
    parameters: int
    samples: int
    loss: float
    noise: GradientNoise | None
    step: StepLength | None
    eigen: Eigenpairs | None
    trace: TraceEstimate | None
    density: Density | None
    layers: tuple[LayerCurvature, ...]
    rise: Rise | None
    not_examined: tuple[tuple[str, str], ...]
    seconds: float

    @property
    def sharpness(self) -> float | None:
        """The largest positive eigenvalue found; None where none was searched or all are negative."""
        return max((value for value in self.eigen.values if value > 0), default=None) if self.eigen else None

    @property
    def critical_learning_rate(self) -> float | None:
        """2 / sharpness: plain gradient descent on these samples is unstable above it."""
        return None if self.sharpness is None else 2.0 / self.sharpness


class Hessian:
    """The Hessian of the mean loss over a subject's batches as an operator on flat vectors (parameters,).

    Graphs of batches are kept as far as they fit into GRAPH_BYTES, which saves a third of each product; the other batches
    are run again for each, so that memory does not grow with their number. BatchNorms in evaluation mode are computed as
    what they are, a scale and a shift: the second derivative of torch's own serves training as well and takes longer.

    Args:
        subject: not to be changed while the operator is in use.
        names: of parameters, as in ``subject.parameters()``, for a diagonal block; None: all.
    """

    def __init__(self, subject: Subject, names: tuple[str, ...] | None = None) -> None:
        found = subject.parameters()
        self.parameters: list[nn.Parameter] = [p for name, p in found.items() if names is None or name in names]
        self.like = torch.zeros_like(flat(self.parameters))
        self._subject = subject
        _unfuse_norms(subject)
        self._total = sum(sample_count(batch) for batch in subject.batches)
        self._kept: dict[int, tuple[Tensor | None, ...]] = {}
        self._may_keep: int | None = None

    def __call__(self, vector: Tensor) -> Tensor:
        """The product with `vector` (parameters,)."""
        product = torch.zeros_like(self.like)
        for number in range(len(self._subject.batches)):
            dot = self._dot(self._gradients(number), vector)
            if dot is not None and dot.requires_grad:
                second = torch.autograd.grad(dot, self.parameters, retain_graph=number in self._kept, allow_unused=True)
                product += flat_gradients(second, self.parameters)
        return product

    def _gradients(self, number: int) -> tuple[Tensor | None, ...]:
        """Gradients of one batch's share of the loss, with their graph."""
        if number in self._kept:
            return self._kept[number]
        if self._may_keep is None:
            self._may_keep = self._batches_that_fit()
        gradients = self._with_graph(number)
        if number < self._may_keep:
            self._kept[number] = gradients
        return gradients

    def _with_graph(self, number: int) -> tuple[Tensor | None, ...]:
        batch = self._subject.batches[number]
        loss = self._subject.batch_loss(batch) * (sample_count(batch) / self._total)
        return torch.autograd.grad(loss, self.parameters, create_graph=True, allow_unused=True)

    def _batches_that_fit(self) -> int:
        """How many batches' graphs may be kept, judged by what the first one holds on to."""
        held: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            self._with_graph(0)
        by_sample = sum(held.values()) / sample_count(self._subject.batches[0])
        room, count = float(GRAPH_BYTES), 0
        for batch in self._subject.batches:
            room -= by_sample * sample_count(batch)
            count += room >= 0
        return count

    def _dot(self, gradients: tuple[Tensor | None, ...], vector: Tensor) -> Tensor | None:
        parts = torch.split(vector, [parameter.numel() for parameter in self.parameters])
        terms = [(g.to_dense() * part.view_as(g)).sum() for g, part in zip(gradients, parts, strict=True) if g is not None]
        return torch.stack(terms).sum() if terms else None


def curvature(
    patient: Patient,
    preset: PresetName = "business",
    *,
    eigenvalues: int | None = None,
    learning_rate: float | None = None,
    double: bool = False,
    work: Path | str | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Curvature:
    """Curvature and gradient noise of the loss at the patient's weights, in evaluation mode, on its batches.

    Args:
        preset: ``economy``, ``business`` or ``full``; see PRESETS.
        eigenvalues: how many, instead of the preset's number.
        learning_rate: of the step whose length is gauged; None: no step.
        double: compute in double precision.
        work: folder for finished pieces; the same call goes on from them after it was killed.
        seed: of the random vectors.

    Raises:
        ValueError: there is no such preset.
        NotExaminable: nothing trains in the model.
    """
    if preset not in get_args(PresetName):
        raise ValueError(f"expected one of {', '.join(get_args(PresetName))}, got {preset!r}")
    started = time.perf_counter()
    chosen = PRESETS[preset]
    count = chosen.eigenvalues if eigenvalues is None else eigenvalues
    book = Workbook.of(work, "curvature", patient, double, seed)
    failures: list[tuple[str, str]] = []

    with patient.examined(dtype=torch.float64 if double else None, seed=seed) as subject, twice_differentiable():
        parameters = subject.parameters()
        if not parameters:
            raise NotExaminable("no parameter of the model trains")
        loss = subject.evaluate().loss
        noise, step = _of_gradients(subject, learning_rate, failures, progress)
        hessian = Hessian(subject)
        eigen = _eigenpairs(hessian, hessian.like, count, book, f"eigen{count}", seed, progress) if count else None
        trace = _trace(hessian, _lengths(parameters), chosen, book, seed, progress) if chosen.probes else None
        density = _density(hessian, chosen, book, seed, progress) if chosen.density_probes else None
        layers = _layers(subject, trace, chosen, book, seed, progress)
        rise = climb(subject, hint=eigen.vectors[0] if eigen else None) if chosen.rise else None
        return Curvature(
            preset=preset,
            parameters=hessian.like.numel(),
            samples=patient.samples,
            loss=loss,
            noise=noise,
            step=step,
            eigen=eigen,
            trace=trace,
            density=density,
            layers=layers,
            rise=rise,
            not_examined=tuple(failures),
            seconds=time.perf_counter() - started,
        )


def hessian_eigenpairs(
    patient: Patient,
    count: int = 5,
    *,
    which: Which = "magnitude",
    tolerance: float = 1e-3,
    max_steps: int = 100,
    double: bool = False,
    work: Path | str | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Eigenpairs:
    """Leading eigenpairs of the Hessian alone; arguments as those of :func:`~nndoctor.lab.spectrum.lanczos_eigenpairs`.

    Args:
        work: folder for finished products; the same call goes on from them after it was killed.
    """
    settings = {"which": which, "tolerance": tolerance, "max_steps": max_steps}
    book = Workbook.of(work, "hessian", patient, double, seed, settings)
    with patient.examined(dtype=torch.float64 if double else None, seed=seed) as subject, twice_differentiable():
        hessian = Hessian(subject)
        return _eigenpairs(hessian, hessian.like, count, book, f"eigen{count}", seed, progress, **settings)


def climb(subject: Subject, *, radius: float = 0.05, steps: int = 10, hint: Tensor | None = None) -> Rise:
    """The highest loss on the way of projected gradient ascent within `radius` of the weights.

    Args:
        hint: a direction to begin with besides the gradient, such as the leading eigenvector, taken both ways.
    """
    parameters = list(subject.parameters().values())
    home = flat(parameters)
    loss = subject.evaluate().loss
    starts = [mean_gradient(subject), *([hint, -hint] if hint is not None else [])]
    worst = loss
    try:
        for start in starts:
            offset = start * (radius / max(float(start.norm()), 1e-30))
            for _ in range(steps):
                _place(parameters, home + offset)
                worst = max(worst, subject.evaluate().loss)
                slope = mean_gradient(subject)
                offset = offset + radius * slope / max(float(slope.norm()), 1e-30)
                offset = offset * min(1.0, radius / max(float(offset.norm()), 1e-30))
    finally:
        _place(parameters, home)
    return Rise(radius, loss, worst)


def _unfuse_norms(subject: Subject) -> None:
    """Give BatchNorms that use their running statistics a forward pass of plain operations; equal up to rounding."""
    for norm in subject.modules():
        if not isinstance(norm, _NORMS) or type(norm) not in _NORMS or norm.training:
            continue  # a subclass may do something else
        if norm.running_mean is not None and norm.running_var is not None:
            norm.forward = partial(_scaled_and_shifted, norm)  # type: ignore[method-assign]


def _scaled_and_shifted(norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d, maps: Tensor) -> Tensor:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)  # (channels,)
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -norm.running_mean * scale if norm.bias is None else norm.bias - norm.running_mean * scale
    channels = (1, -1) + (1,) * (maps.dim() - 2)
    return maps * scale.view(channels) + shift.view(channels)


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Operations whose fast versions have no second derivative in their plain versions: attention, and cuDNN's networks."""
    plain = torch.backends.cudnn.flags(enabled=False) if torch.cuda.is_available() else nullcontext()
    with sdpa_kernel(SDPBackend.MATH), plain:
        yield


def _of_gradients(
    subject: Subject, learning_rate: float | None, failures: list[tuple[str, str]], progress: Progress
) -> tuple[GradientNoise | None, StepLength | None]:
    noise = step = None
    try:
        noise = gradient_noise(subject, progress=progress)
    except NotExaminable as reason:
        failures.append(("gradient noise", str(reason)))
    try:
        if learning_rate is not None:
            step = step_length(subject, -learning_rate * mean_gradient(subject), progress=progress)
    except NotExaminable as reason:
        failures.append(("step length", str(reason)))
    return noise, step


def _eigenpairs(
    operator: Operator, like: Tensor, count: int, book: Workbook, key: str, seed: int, progress: Progress, **settings: Any
) -> Eigenpairs:
    """Eigenpairs whose products are kept in `book` one by one until they are all known."""
    vectors = book.array(f"{key}-vectors")
    if key in book and vectors is not None:
        values, residuals, converged, products = book.get(key)
        return Eigenpairs(tuple(values), tuple(residuals), converged, products, torch.from_numpy(vectors).to(like))
    found = lanczos_eigenpairs(_Remembered(operator, book, f"{key}-product"), like, count, seed=seed, progress=progress, **settings)
    book.put_array(f"{key}-vectors", found.vectors.cpu().numpy())
    book.put(key, [found.values, found.residuals, found.converged, found.products])
    book.drop_arrays(f"{key}-product")
    return found


@dataclass
class _Remembered:
    """An operator whose products are on disk: asked again in the same order, it answers without computing."""

    operator: Operator
    book: Workbook
    key: str
    asked: int = 0

    def __call__(self, vector: Tensor) -> Tensor:
        key = f"{self.key}{self.asked}"
        self.asked += 1
        known = self.book.array(key)
        if known is not None:
            return torch.from_numpy(known).to(vector)
        product = self.operator(vector)
        self.book.put_array(key, product.cpu().numpy())
        return product


def _trace(
    hessian: Hessian, lengths: tuple[int, ...], chosen: Preset, book: Workbook, seed: int, progress: Progress
) -> TraceEstimate:
    return hutchinson_trace(
        hessian, hessian.like, parts=lengths, probes=chosen.probes, tolerance=chosen.trace_tolerance, seed=seed, progress=progress, keep=book.done
    )


def _density(hessian: Hessian, chosen: Preset, book: Workbook, seed: int, progress: Progress) -> Density:
    return spectral_density(hessian, hessian.like, probes=chosen.density_probes, seed=seed, progress=progress, keep=book.done)


def _layers(
    subject: Subject, trace: TraceEstimate | None, chosen: Preset, book: Workbook, seed: int, progress: Progress
) -> tuple[LayerCurvature, ...]:
    """One row per layer, with what the preset asks for."""
    if trace is None and not chosen.layers:
        return ()
    parameters = subject.parameters()
    blocks = _blocks(parameters)
    rows = []
    for number, (name, members) in enumerate(blocks.items()):
        size = sum(parameters[member].numel() for member in members)
        share, error = (None, None) if trace is None else (trace.parts[number], trace.part_errors[number])
        leading, residual = None, None
        if chosen.layers:
            leading, residual = book.done(f"layer-{name}", _leading(Hessian(subject, members), name, seed, progress))
        rows.append(LayerCurvature(name, size, share, error, leading, residual))
    return tuple(rows)


def _leading(block: Hessian, name: str, seed: int, progress: Progress) -> Callable[[], list[float]]:
    def show(task: str, done: int, total: int) -> None:
        progress(f"{task} of {name}", done, total)

    def make() -> list[float]:
        found = lanczos_eigenpairs(block, block.like, 1, seed=seed, progress=show, tolerance=1e-2)
        return [found.values[0], found.residuals[0]]

    return make


def _blocks(parameters: Mapping[str, nn.Parameter]) -> dict[str, tuple[str, ...]]:
    """Names of parameters by layer, in their order; those of one layer stand together."""
    blocks: dict[str, tuple[str, ...]] = {}
    for name in parameters:
        layer = name.rpartition(".")[0] or name
        blocks[layer] = (*blocks.get(layer, ()), name)
    together = [name for members in blocks.values() for name in members]
    return blocks if together == list(parameters) else {name: (name,) for name in parameters}


def _lengths(parameters: Mapping[str, nn.Parameter]) -> tuple[int, ...]:
    return tuple(sum(parameters[name].numel() for name in members) for members in _blocks(parameters).values())


@torch.no_grad()
def _place(parameters: list[nn.Parameter], weights: Tensor) -> None:
    for parameter, part in zip(parameters, torch.split(weights, [p.numel() for p in parameters]), strict=True):
        parameter.copy_(part.view_as(parameter))

