"""Gradients of single samples: how much of the mean gradient is noise, and how well a step's length fits the slope.

One pass of ``torch.func`` over the batches; what does not run under ``vmap`` is done sample by sample.

McCandlish et al. 2018 (https://arxiv.org/abs/1812.06162), appendix A, for the noise scale; Bollapragada, Byrd and Nocedal 2018,
Adaptive Sampling Strategies for Stochastic Optimization, for the tests; Schneider, Dangel and Hennig 2021, Cockpit
(https://arxiv.org/abs/2102.06604), for the step length.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from nndoctor.examinations.patient import Batch, NotExaminable
from nndoctor.examinations.untouched import copied
from nndoctor.lab.patient import Patient, Subject, sample_count
from nndoctor.lab.progress import Progress, silent
from nndoctor.lab.results import Result

ROOM = 2**26
"""Numbers that the gradients of the samples handled at once may take together (256 MiB in single precision)."""


@dataclass(frozen=True)
class GradientNoise(Result):
    """How much of the gradient of all samples is noise of sampling.

    Args:
        samples: N; the statistics say what batches of this size are like.
        norm: length of the mean gradient.
        signal, noise: unbiased squared length of the true gradient, and trace of the covariance of one sample's.
        noise_scale, error: ``noise / signal``, the batch size at which both are equal, and its jackknife error;
            infinite where the signal cannot be told from zero.
        norm_test, inner_product_test, orthogonality_test: relative standard deviation of the mean gradient as a whole,
            along itself, and across itself; norm_test² = inner_product_test² + orthogonality_test².
        signal_to_noise: mean over parameters of squared mean gradient by variance of one sample's.
        early_stopping: ``1 - N * signal_to_noise`` (Mahsereci et al. 2017): above 0 the mean gradient is no larger
            than noise alone would make it, and there is nothing left to learn from these samples.
    """

    samples: int
    norm: float
    signal: float
    noise: float
    noise_scale: float
    error: float
    norm_test: float
    inner_product_test: float
    orthogonality_test: float
    signal_to_noise: float
    early_stopping: float


@dataclass(frozen=True)
class StepLength(Result):
    """How far a step went along its own direction, by a parabola through losses and slopes at both ends.

    Args:
        alpha: -1 at the start, 0 at the bottom of the parabola, 1 as far beyond it; below 0 the step could have been
            longer, above 1 it ends higher than it began. -1 where the parabola opens downwards, infinite where the step
            goes uphill from the start.
        error: standard error of alpha, from the spread of the samples; NaN where alpha is infinite.
        length: of the step.
        losses, slopes: mean loss and its derivative along the unit step, at the start and at the end.
        curvature: second derivative along the unit step, of the parabola.
    """

    alpha: float
    error: float
    length: float
    losses: tuple[float, float]
    slopes: tuple[float, float]
    curvature: float


@dataclass(frozen=True)
class SampleGradients:
    """What is kept of the gradients g_i of N samples: never the gradients themselves.

    Args:
        losses: (N,)
        squares: squared lengths of g_i (N,)
        products: inner products of g_i with given vectors (N, vectors)
        sum_of_squares: elementwise over the samples (parameters,)
    """

    losses: NDArray[np.float64]
    squares: NDArray[np.float64]
    products: NDArray[np.float64]
    sum_of_squares: Tensor


def gradient_noise(subject: Subject, *, progress: Progress = silent) -> GradientNoise:
    """Noise of the gradient over all samples of the subject's batches.

    Raises:
        NotExaminable: fewer than two samples, or the loss is no mean over samples.
    """
    mean = mean_gradient(subject)
    found = sample_gradients(subject, mean[None], progress=progress)
    return _noise(found, mean)


def step_length(subject: Subject, step: Tensor, *, progress: Progress = silent) -> StepLength:
    """The gauge for `step` (parameters,), the change that an optimizer makes; see :func:`step_of`.

    Raises:
        NotExaminable: the step is zero, or the loss is no mean over samples.
    """
    length = float(step.norm())
    if length == 0.0:
        raise NotExaminable("the step is zero")
    direction = (step / length)[None]
    before = sample_gradients(subject, direction, progress=progress)
    with _moved(subject, step):
        after = sample_gradients(subject, direction, progress=progress)
    columns = [before.losses, after.losses, before.products[:, 0], after.products[:, 0]]
    return _gauge(np.stack(columns, axis=1), length)


def step_of(patient: Patient, optimizer: torch.optim.Optimizer) -> Tensor:
    """The change (parameters,) that the next step of `optimizer` makes on the patient's batches; made on copies."""
    with patient.examined() as subject:
        model, loss, twin = copied(patient.model, patient.loss_function, optimizer)
        model.eval()
        stepping = Subject(model, loss, twin, batches=subject.batches)
        before = flat(list(stepping.parameters().values()))
        twin.zero_grad()
        stepping.mean_loss().backward()  # type: ignore[no-untyped-call]
        twin.step()
        return flat(list(stepping.parameters().values())) - before


def mean_gradient(subject: Subject) -> Tensor:
    """The gradient of the mean loss over all samples (parameters,), batch after batch."""
    parameters = list(subject.parameters().values())
    total = sum(sample_count(batch) for batch in subject.batches)
    mean = flat(parameters) * 0
    for batch in subject.batches:
        gradients = torch.autograd.grad(subject.batch_loss(batch), parameters, allow_unused=True)
        mean += flat_gradients(gradients, parameters) * (sample_count(batch) / total)
    return mean


def sample_gradients(subject: Subject, vectors: Tensor, *, progress: Progress = silent) -> SampleGradients:
    """Lengths of the gradients of single samples and their products with `vectors` (count, parameters).

    Raises:
        NotExaminable: samples cannot be taken apart, or the loss is no mean over them.
    """
    losses, squares, products = [], [], []
    summed = torch.zeros_like(vectors[0])
    chunk = max(1, ROOM // max(1, vectors.shape[1]))
    total = sum(sample_count(batch) for batch in subject.batches)
    for batch in subject.batches:
        whole = float(subject.batch_loss(batch).detach())
        alone = []
        for piece in _pieces(batch, chunk):
            gradients, values = _of_samples(subject, piece)  # (samples, parameters), (samples,)
            alone.append(values.double().cpu().numpy())
            squares.append(gradients.square().sum(1, dtype=torch.float64).cpu().numpy())
            products.append((gradients @ vectors.T).double().cpu().numpy())
            summed += gradients.square().sum(0)
            progress("samples", sum(map(len, squares)), total)
        losses.append(np.concatenate(alone))
        if abs(losses[-1].mean() - whole) > 1e-3 * abs(whole) + 1e-5:
            raise NotExaminable(
                f"the loss is no mean over samples: they have {losses[-1].mean():.4g} on average, their batch {whole:.4g}"
            )
    return SampleGradients(np.concatenate(losses), np.concatenate(squares), np.concatenate(products), summed)


def flat(tensors: list[Tensor] | list[torch.nn.Parameter]) -> Tensor:
    """All tensors as one vector, without their graph."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def flat_gradients(gradients: tuple[Tensor | None, ...], parameters: list[torch.nn.Parameter]) -> Tensor:
    """Gradients as one vector; zeros for parameters that have none."""
    pairs = zip(gradients, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g.detach().to_dense()).reshape(-1) for g, p in pairs])


def _of_samples(subject: Subject, batch: Batch) -> tuple[Tensor, Tensor]:
    try:
        return _vectorised(subject, batch)
    except (RuntimeError, TypeError, ValueError, NotImplementedError):
        return _one_by_one(subject, batch)  # operations that vmap does not know, or control flow that depends on data


def _vectorised(subject: Subject, batch: Batch) -> tuple[Tensor, Tensor]:
    """Gradients (samples, parameters) and losses (samples,) of all samples at once."""
    held: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        held.append(tensor)
        return tensor

    batch.mapped(note)
    axes = [_sample_axis(tensor, batch) for tensor in held]
    trained = {name: p.detach() for name, p in subject.model.named_parameters() if p.requires_grad}
    if trained.keys() != subject.parameters().keys():
        raise NotImplementedError("the loss has parameters of its own")

    def loss(parameters: dict[str, Tensor], *parts: Tensor) -> Tensor:
        rest = iter(zip(parts, axes, strict=True))

        def sample(_: Tensor) -> Tensor:
            part, axis = next(rest)
            return part if axis is None else part.unsqueeze(axis)

        one = batch.mapped(sample)
        return subject.loss(functional_call(subject.model, parameters, one.args, dict(one.kwargs)), one)

    of_sample = vmap(grad_and_value(loss), in_dims=(None, *axes), randomness="different")
    gradients, losses = of_sample(trained, *held)
    return torch.cat([gradients[name].flatten(1) for name in trained], dim=1).detach(), losses.detach()


def _one_by_one(subject: Subject, batch: Batch) -> tuple[Tensor, Tensor]:
    parameters = list(subject.parameters().values())
    rows, losses = [], []
    for piece in _pieces(batch, 1):
        loss = subject.batch_loss(piece)
        rows.append(flat_gradients(torch.autograd.grad(loss, parameters, allow_unused=True), parameters))
        losses.append(loss.detach())
    return torch.stack(rows), torch.stack(losses)


def _pieces(batch: Batch, count: int) -> Iterator[Batch]:
    size = batch.size
    if size is None:
        raise NotExaminable("samples cannot be taken apart: an input relates them to each other")
    for start in range(0, size, count):
        yield batch.part(start, min(count, size - start))


def _sample_axis(tensor: Tensor, batch: Batch) -> int | None:
    """Where the samples lie in a tensor of `batch`; None where it has none."""
    along = batch.axis if tensor.dim() > batch.axis and tensor.shape[batch.axis] == batch.size else 0
    return along if tensor.dim() > along and tensor.shape[along] == batch.size else None


@contextmanager
def _moved(subject: Subject, step: Tensor) -> Iterator[None]:
    """The subject with `step` added to its parameters, which are put back to the last bit."""
    parameters = list(subject.parameters().values())
    before = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter, part in zip(parameters, torch.split(step, [p.numel() for p in parameters]), strict=True):
            parameter.add_(part.view_as(parameter))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, old in zip(parameters, before, strict=True):
                parameter.copy_(old)


def _noise(found: SampleGradients, mean: Tensor) -> GradientNoise:
    count = len(found.squares)
    if count < 2:
        raise NotExaminable("noise needs at least two samples")
    along = found.products[:, 0]
    square = float(mean.double().square().sum())
    signal, noise = _signal_and_noise(square, found.squares.sum(), count)
    # Leaving sample i out changes both sums in closed form, so the jackknife costs no further pass.
    squares = (count**2 * square - 2 * count * along + found.squares) / (count - 1) ** 2
    if count > 2:
        signals, noises = _signal_and_noise(squares, found.squares.sum() - found.squares, count - 1)
        ratios = np.where(signals > 0, noises / np.where(signals > 0, signals, 1.0), math.inf)
        finite = bool(np.isfinite(ratios).all())
        error = math.sqrt((count - 1) * float(ratios.var())) if finite else math.inf
    else:
        error = math.inf
    shares = count * (count - 1)
    relative = math.sqrt(max(0.0, found.squares.sum() / square - count) / shares) if square else math.inf
    inner = math.sqrt(max(0.0, (along**2).sum() / square**2 - count) / shares) if square else math.inf
    across = math.sqrt(max(0.0, relative**2 - inner**2)) if square else math.inf
    variance = (found.sum_of_squares.double() - count * mean.double().square()) / (count - 1)
    moved = variance > 0
    ratio = float((mean.double().square()[moved] / variance[moved]).mean()) if bool(moved.any()) else math.nan
    return GradientNoise(
        samples=count,
        norm=math.sqrt(square),
        signal=float(signal),
        noise=float(noise),
        noise_scale=float(noise / signal) if signal > 0 else math.inf,
        error=error,
        norm_test=relative,
        inner_product_test=inner,
        orthogonality_test=across,
        signal_to_noise=ratio,
        early_stopping=1.0 - count * ratio,
    )


def _signal_and_noise(square: NDArray[np.float64] | float, total: NDArray[np.float64] | float, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Unbiased |G|² and tr(Σ) from the squared length of the mean of `count` gradients and the sum of theirs."""
    noise = (np.asarray(total) - count * np.asarray(square)) / (count - 1)
    return np.asarray(square) - noise / count, noise


def _gauge(observed: NDArray[np.float64], length: float) -> StepLength:
    """Alpha of the parabola that fits losses and slopes at both ends, each weighted by its own certainty."""
    count = len(observed)
    values = observed.mean(axis=0)
    covariance = np.cov(observed, rowvar=False) / count if count > 1 else np.zeros((4, 4))
    design = np.array([[1, 0, 0], [1, length, length**2], [0, 1, 0], [0, 1, 2 * length]], dtype=np.float64)
    spread = np.sqrt(np.diag(covariance))
    weights = 1.0 / np.where(spread > 0, spread, 1.0) if (spread > 0).all() else np.ones(4)
    solve = np.linalg.pinv(design * weights[:, None]) * weights  # (3, 4), from observations to coefficients
    fitted = solve @ values
    alpha = _alpha(fitted, length)
    small = 1e-4 * np.abs(fitted) + 1e-12
    slope = np.array([(_alpha(fitted + step, length) - _alpha(fitted - step, length)) / (2 * step.sum()) for step in np.diag(small)])
    spread_of_alpha = float(slope @ (solve @ covariance @ solve.T) @ slope)
    error = math.sqrt(max(0.0, spread_of_alpha)) if count > 1 and math.isfinite(spread_of_alpha) else math.nan
    first, last, slope_first, slope_last = map(float, values)
    return StepLength(alpha, error, length, (first, last), (slope_first, slope_last), 2 * float(fitted[2]))


def _alpha(coefficients: NDArray[np.float64], length: float) -> float:
    _, slope, bend = coefficients
    if slope >= 0:
        return math.inf
    return -1.0 if bend <= 0 else float(length / (-slope / (2 * bend)) - 1.0)


def as_step(patient: Patient, learning_rate: float) -> Tensor:
    """The step of plain gradient descent with `learning_rate` on the patient's batches (parameters,)."""
    with patient.examined() as subject:
        return -learning_rate * mean_gradient(subject)
