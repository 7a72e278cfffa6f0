"""Spectra of symmetric operators that are known by their products with vectors alone; no model in here.

Golub and Meurant 2010, Matrices, Moments and Quadrature; Parlett 1998, The Symmetric Eigenvalue Problem, chapter 13.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from nndoctor.lab.progress import Progress, silent
from nndoctor.lab.results import Result

Operator: TypeAlias = Callable[[Tensor], Tensor]
"""Product with a vector (n,), itself (n,); always the same one, and symmetric."""
Which: TypeAlias = Literal["magnitude", "largest", "smallest"]

BREAKDOWN = 1e-6
"""Share of the operator's scale below which a new Lanczos vector is rounding: the space found is invariant."""


@dataclass(frozen=True)
class Eigenpairs(Result):
    """Leading eigenvalues of a symmetric operator, each with its residual.

    Args:
        values: by magnitude (or by size), largest first, with their signs.
        residuals: length of ``A v - value * v`` for unit v, computed with one more product each.
        converged: whether all residuals are within the tolerance asked for.
        products: how often the operator was applied.
        vectors: unit eigenvectors (count, n).
    """

    values: tuple[float, ...]
    residuals: tuple[float, ...]
    converged: bool
    products: int
    vectors: Tensor = field(repr=False, compare=False)


@dataclass(frozen=True)
class TraceEstimate(Result):
    """A trace with its standard error, in parts that add up to it.

    Args:
        value, error: mean over the probes and its standard error; NaN for a single probe.
        probes: random vectors used.
        parts, part_errors: the same for each part of the diagonal.
    """

    value: float
    error: float
    probes: int
    parts: tuple[float, ...] = ()
    part_errors: tuple[float, ...] = ()


@dataclass(frozen=True)
class Density(Result):
    """How eigenvalues are distributed: a quadrature rule, and the same smoothed for the eye.

    Args:
        nodes, weights: eigenvalues and their share of the spectrum; weights add up to 1.
        grid, density: a Gaussian of width `width` at every node; its integral is 1.
        width: standard deviation of these Gaussians.
    """

    nodes: tuple[float, ...]
    weights: tuple[float, ...]
    grid: tuple[float, ...]
    density: tuple[float, ...]
    width: float

    @property
    def negative_share(self) -> float:
        """Share of the spectrum clearly below zero: more than a hundredth of the largest magnitude."""
        limit = -0.01 * max(map(abs, self.nodes))
        return sum(weight for node, weight in zip(self.nodes, self.weights, strict=True) if node < limit)


@dataclass(frozen=True)
class _Krylov:
    """An orthonormal basis (steps, n) in which the operator is tridiagonal; `last` is what would lead on."""

    basis: Tensor
    diagonal: NDArray[np.float64]
    beside: NDArray[np.float64]
    last: float

    def ritz(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Eigenvalues (steps,) and eigenvectors (steps, steps) of the tridiagonal matrix."""
        if len(self.diagonal) == 1:
            return self.diagonal.copy(), np.ones((1, 1))
        values, vectors = eigh_tridiagonal(self.diagonal, self.beside)
        return np.asarray(values, dtype=np.float64), np.asarray(vectors, dtype=np.float64)


def lanczos_eigenpairs(
    operator: Operator,
    like: Tensor,
    count: int = 5,
    *,
    which: Which = "magnitude",
    tolerance: float = 1e-3,
    max_steps: int = 100,
    seed: int = 0,
    progress: Progress = silent,
) -> Eigenpairs:
    """Leading eigenpairs by Lanczos with full re-orthogonalisation.

    One Krylov space holds one vector of every eigenspace. So what was found is locked, and the rest of the space is
    searched until nothing in it leads any more: eigenvalues that occur several times are found as often as they occur.

    Args:
        operator: symmetric, the same in each call.
        like: any vector (n,); its type and device are those of the vectors.
        count: eigenpairs wanted; never more than n.
        which: ``magnitude``, ``largest`` or ``smallest``.
        tolerance: residual that an eigenpair may have, as a share of the largest magnitude of the spectrum.
        max_steps: products that one search may take; results that do not converge in it say so.
        seed: of the random start.
    """
    size = like.numel()
    count = min(count, size)
    generator = torch.Generator().manual_seed(seed)
    counter = _Counted(operator, progress, "eigenvalues", max_steps)
    locked = like.new_zeros(0, size)
    values: list[float] = []
    while locked.shape[0] < size:
        wanted = count if not values else 1
        floor = _order(values, which)[count - 1] if len(values) >= count else None
        space, found = _search(counter, like, locked, wanted, which, tolerance, max_steps, generator, floor)
        theta, coefficients = space.ritz()
        chosen = [index for index in found if floor is None or _rank(float(theta[index]), which) > _rank(floor, which)]
        if not chosen:
            break
        vectors = torch.from_numpy(coefficients[:, chosen].T.copy()).to(like) @ space.basis  # (chosen, n)
        locked = torch.cat((locked, _orthonormal(vectors, locked)))
        values += [float(theta[index]) for index in chosen]
    leading = sorted(range(len(values)), key=lambda index: -_rank(values[index], which))[:count]
    return _checked(counter, [values[i] for i in leading], locked[leading], tolerance)


def power_eigenpairs(
    operator: Operator, like: Tensor, count: int = 5, *, tolerance: float = 1e-3, max_steps: int = 2000, seed: int = 0
) -> Eigenpairs:
    """Leading eigenpairs by magnitude with deflated power iteration: slow and simple, the reference for Lanczos.

    A deflated operator is ``A - sum value * v v^T``; the value of a vector is its Rayleigh quotient, with its sign.
    """
    generator = torch.Generator().manual_seed(seed)
    counter = _Counted(operator, silent, "", max_steps)
    vectors = like.new_zeros(0, like.numel())
    values: list[float] = []
    for _ in range(min(count, like.numel())):
        vector = _unit(_random(like, generator))
        for _ in range(max_steps):
            image = counter(vector)
            image = image - vectors.T @ (like.new_tensor(values) * (vectors @ vector))
            value = float(vector @ image)
            largest = max(map(abs, [value, *values]))
            if float((image - value * vector).norm()) <= 0.1 * tolerance * largest:
                break
            vector = _unit(image)
        values.append(value)
        vectors = torch.cat((vectors, vector[None]))
    return _checked(counter, values, vectors, tolerance)


def hutchinson_trace(
    operator: Operator,
    like: Tensor,
    *,
    parts: tuple[int, ...] = (),
    probes: int = 32,
    tolerance: float = 0.0,
    seed: int = 0,
    progress: Progress = silent,
    keep: Callable[[str, Callable[[], list[float]]], list[float]] | None = None,
) -> TraceEstimate:
    """The trace as the mean of ``z . A z`` over random signs z (Hutchinson 1990), with its standard error.

    Args:
        parts: lengths of consecutive parts of the diagonal, together n; each part's trace comes at no further cost.
        probes: how many random vectors at most.
        tolerance: stop when the error is below this share of the value, after at least four probes; 0: use all.
        keep: called as ``keep(key, make)`` for the numbers of each probe, to have them kept; see Workbook.done.
    """
    lengths = list(parts) or [like.numel()]
    rows: list[list[float]] = []
    for index in range(probes):
        generator = torch.Generator().manual_seed(seed + index)

        def probe(generator: torch.Generator = generator) -> list[float]:
            signs = torch.randint(0, 2, (like.numel(),), generator=generator).to(like) * 2 - 1
            return [float(piece.sum(dtype=torch.float64)) for piece in torch.split(signs * operator(signs), lengths)]

        rows.append(probe() if keep is None else keep(f"trace{index}", probe))
        progress("trace", index + 1, probes)
        totals = np.asarray(rows).sum(axis=1)
        if len(rows) >= 4 and _error(totals) <= tolerance * abs(totals.mean()):
            break
    table = np.asarray(rows)  # (probes, parts)
    means = table.mean(axis=0)
    errors = [float(_error(column)) for column in table.T]
    return TraceEstimate(float(totals.mean()), float(_error(totals)), len(rows), tuple(map(float, means)), tuple(errors))


def spectral_density(
    operator: Operator,
    like: Tensor,
    *,
    probes: int = 4,
    steps: int = 40,
    points: int = 401,
    seed: int = 0,
    progress: Progress = silent,
    keep: Callable[[str, Callable[[], list[list[float]]]], list[list[float]]] | None = None,
) -> Density:
    """Density of the spectrum by stochastic Lanczos quadrature (Ubaru, Chen and Saad 2017).

    Each random unit vector gives a Gauss rule of `steps` nodes for the spectral measure; their mean is the density.
    """
    nodes: list[float] = []
    weights: list[float] = []
    for index in range(probes):
        generator = torch.Generator().manual_seed(seed + index)

        counted = _Counted(operator, progress, f"density, probe {index + 1} of {probes}", steps)

        def rule(generator: torch.Generator = generator, counted: _Counted = counted) -> list[list[float]]:
            space = _lanczos(counted, like, like.new_zeros(0, like.numel()), steps, generator, stop_at_breakdown=True)
            values, vectors = space.ritz()
            return [values.tolist(), (vectors[0] ** 2).tolist()]

        found = rule() if keep is None else keep(f"density{index}", rule)
        nodes += found[0]
        weights += [weight / probes for weight in found[1]]
    return _smoothed(np.asarray(nodes), np.asarray(weights), points)


def _smoothed(nodes: NDArray[np.float64], weights: NDArray[np.float64], points: int) -> Density:
    """Gaussians as wide as three steps of the grid, so that their integral over it is 1 to three digits."""
    low, high = float(nodes.min()), float(nodes.max())
    reach = max(high - low, 1e-12 + 1e-6 * abs(high))
    grid = np.linspace(low - 0.05 * reach, high + 0.05 * reach, points)
    width = 3.0 * float(grid[1] - grid[0])
    heights = np.exp(-0.5 * ((grid[:, None] - nodes[None]) / width) ** 2) / (width * math.sqrt(2 * math.pi))
    order = np.argsort(nodes)
    return Density(
        tuple(nodes[order].tolist()), tuple(weights[order].tolist()), tuple(grid.tolist()), tuple((heights @ weights).tolist()), width
    )


@dataclass
class _Counted:
    """An operator that counts its products and shows how far it is."""

    operator: Operator
    progress: Progress
    task: str
    total: int
    products: int = 0

    def __call__(self, vector: Tensor) -> Tensor:
        image = self.operator(vector)
        self.products += 1
        self.progress(self.task, self.products, max(self.total, self.products))
        return image


def _search(
    operator: _Counted,
    like: Tensor,
    locked: Tensor,
    wanted: int,
    which: Which,
    tolerance: float,
    max_steps: int,
    generator: torch.Generator,
    floor: float | None,
) -> tuple[_Krylov, list[int]]:
    """A Krylov space beside `locked` and the numbers of its `wanted` leading Ritz pairs.

    It ends when they have converged, or when they can no longer come above `floor`.
    """
    chosen: list[int] = []

    def enough(space: _Krylov) -> bool:
        nonlocal chosen
        if len(space.diagonal) < wanted:
            return False
        theta, coefficients = space.ritz()
        chosen = sorted(range(len(theta)), key=lambda index: -_rank(float(theta[index]), which))[:wanted]
        residuals = abs(space.last * coefficients[-1, chosen])
        allowed = tolerance * float(np.abs(theta).max())
        if floor is not None and _rank(float(theta[chosen[0]]), which) + float(residuals.max()) < _rank(floor, which):
            return len(theta) >= 3
        return bool((residuals <= 0.5 * allowed).all())

    space = _lanczos(operator, like, locked, max_steps, generator, enough=enough)
    enough(space)
    return space, chosen


def _lanczos(
    operator: Operator,
    like: Tensor,
    locked: Tensor,
    max_steps: int,
    generator: torch.Generator,
    *,
    enough: Callable[[_Krylov], bool] | None = None,
    stop_at_breakdown: bool = False,
) -> _Krylov:
    """A Krylov space orthogonal to `locked`, re-orthogonalised twice at every step.

    Where the space is invariant a fresh random vector goes on, unless `stop_at_breakdown` (quadrature is exact there).
    """
    size = like.numel()
    room = min(max_steps, size - locked.shape[0])
    basis = like.new_zeros(room, size)
    basis[0] = _unit(_without(_random(like, generator), locked))
    diagonal: list[float] = []
    beside: list[float] = []
    for step in range(room):
        image = operator(basis[step])
        diagonal.append(float(basis[step] @ image))
        rest = _without(_without(image, basis[: step + 1], locked), basis[: step + 1], locked)
        length = float(rest.norm())
        scale = max(max(map(abs, diagonal)), max(beside, default=0.0), 1e-30)
        broken = length <= BREAKDOWN * scale
        last = 0.0 if broken else length
        space = _Krylov(basis[: step + 1], np.asarray(diagonal), np.asarray(beside), last)
        if step + 1 == room or (broken and stop_at_breakdown) or (enough is not None and enough(space)):
            return space
        beside.append(last)
        fresh = _random(like, generator) if broken else rest
        basis[step + 1] = _unit(_without(_without(fresh, basis[: step + 1], locked), basis[: step + 1], locked) if broken else rest)
    raise AssertionError("a Krylov space has at least one step")


def _checked(operator: _Counted, values: list[float], vectors: Tensor, tolerance: float) -> Eigenpairs:
    """The pairs with residuals from one more product each."""
    residuals = [float((operator(vector) - value * vector).norm()) for value, vector in zip(values, vectors, strict=True)]
    allowed = tolerance * max(map(abs, values), default=0.0)
    converged = all(residual <= max(allowed, 1e-30) for residual in residuals)
    return Eigenpairs(tuple(values), tuple(residuals), converged, operator.products, vectors)


def _rank(value: float, which: Which) -> float:
    return abs(value) if which == "magnitude" else -value if which == "smallest" else value


def _order(values: list[float], which: Which) -> list[float]:
    return sorted(values, key=lambda value: -_rank(value, which))


def _random(like: Tensor, generator: torch.Generator) -> Tensor:
    """A Gaussian vector, drawn on the host so that every device gets the same one."""
    return torch.randn(like.numel(), generator=generator).to(like)


def _unit(vector: Tensor) -> Tensor:
    unit: Tensor = vector / vector.norm()
    return unit


def _without(vector: Tensor, *spaces: Tensor) -> Tensor:
    """`vector` without its part in spaces with orthonormal rows (m, n)."""
    for space in spaces:
        if space.shape[0]:
            vector = vector - space.T @ (space @ vector)
    return vector


def _orthonormal(vectors: Tensor, locked: Tensor) -> Tensor:
    """`vectors` made orthonormal, and orthogonal to `locked`, in their order."""
    done = locked
    for vector in vectors:
        clean = _unit(_without(_without(vector, done), done))
        done = torch.cat((done, clean[None]))
    return done[locked.shape[0] :]


def _error(samples: NDArray[np.float64]) -> float:
    return float(samples.std(ddof=1) / math.sqrt(len(samples))) if len(samples) > 1 else math.nan
