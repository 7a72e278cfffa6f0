"""How alike two representations of the same inputs are, and how many dimensions one of them fills; no model in here.

A representation is a matrix with one row for each input (or position in it) and one column for each unit.

SVCCA: Raghu et al. 2017 (https://arxiv.org/abs/1706.05806). PWCCA: Morcos et al. 2018 (https://arxiv.org/abs/1806.05759). CKA:
Kornblith et al. 2019 (https://arxiv.org/abs/1905.00414), debiased over batches as in Nguyen et al. 2020
(https://arxiv.org/abs/2010.15327). Saturation: Richter et al. 2020 (https://arxiv.org/abs/2006.08679).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Matrix: TypeAlias = NDArray[np.float64]

CONSTANT = 1e-12
"""Share of the largest variance below which a direction is rounding."""


@dataclass(frozen=True)
class Dimension:
    """How many directions a representation fills.

    Args:
        intrinsic: the fewest principal directions whose variance is `share` of the whole; that which crosses it counts.
        saturation: `intrinsic` by the number of units.
        participation: squared sum of the variances by the sum of their squares: a count without a threshold.
        units, rows: of the matrix.
        enough: whether there are more rows than units; else the rows limit what can be found.
    """

    intrinsic: int
    saturation: float
    participation: float
    units: int
    rows: int
    enough: bool


def dimension(rows: Matrix, share: float = 0.99) -> Dimension:
    """How many directions `rows` (n, units) fill. A constant representation fills none.

    Raises:
        ValueError: `share` is not between 0 and 1, or there are fewer than two rows.
    """
    _check(rows, share)
    variances = _variances(_centred(rows))
    count, units = rows.shape
    total = variances.sum()
    if total <= 0:
        return Dimension(0, 0.0, 0.0, units, count, count > units)
    intrinsic = _crossing(variances, share)
    participation = float(total**2 / (variances**2).sum())
    return Dimension(intrinsic, intrinsic / units, participation, units, count, count > units)


def canonical_correlations(first: Matrix, second: Matrix, share: float = 0.99) -> Matrix:
    """Correlations between the best-matching directions of both, largest first.

    Each is reduced to the principal directions that hold `share` of its variance; constant and dead units play no part.
    Empty where a representation is constant, or where the rows are too few to tell: with as many directions in both together
    as rows, some correlations are 1 whatever the representations are.

    Raises:
        ValueError: their numbers of rows differ.
    """
    if first.shape[0] != second.shape[0]:
        raise ValueError(f"expected representations of the same inputs, got {first.shape[0]} and {second.shape[0]} rows")
    one, two = _basis(first, share), _basis(second, share)
    if not one.shape[1] or not two.shape[1] or one.shape[1] + two.shape[1] >= first.shape[0]:
        return np.zeros(0)
    return _matrix(np.clip(np.linalg.svd(one.T @ two, compute_uv=False), 0.0, 1.0))


def svcca(first: Matrix, second: Matrix, share: float = 0.99) -> float:
    """Mean canonical correlation of the principal directions; NaN where it cannot be told."""
    found = canonical_correlations(first, second, share)
    return float(found.mean()) if len(found) else math.nan


def pwcca(first: Matrix, second: Matrix, share: float = 0.99) -> float:
    """Mean canonical correlation weighted by how much of `first` each direction carries; NaN where it cannot be told."""
    if not len(canonical_correlations(first, second, share)):
        return math.nan
    one, two = _basis(first, share), _basis(second, share)
    turn, correlations, _ = np.linalg.svd(one.T @ two)
    variates = one @ turn[:, : len(correlations)]  # (rows, directions)
    weights = np.abs(variates.T @ _centred(first)).sum(axis=1)
    return float(np.clip(correlations, 0.0, 1.0) @ weights / weights.sum())


def gram(rows: Matrix) -> Matrix:
    """Inner products of centred rows, which is all that linear CKA needs (n, n)."""
    centred = _centred(rows)
    return _matrix(centred @ centred.T)


def debiased_cka(first: Sequence[Matrix], second: Sequence[Matrix]) -> float:
    """Linear CKA from the Gram matrices of one batch or more, without the bias that few samples give.

    Numerator and denominators are means over the batches of the unbiased estimator of HSIC (Song et al. 2012). Independent
    representations come out at about 0, on either side of it. NaN where one of them is constant.

    Raises:
        ValueError: batches do not match, or none has the four samples that are needed.
    """
    if [g.shape for g in first] != [g.shape for g in second]:
        raise ValueError("expected Gram matrices of the same batches")
    usable = [(one, two) for one, two in zip(first, second, strict=True) if one.shape[0] >= 4]
    if not usable:
        raise ValueError("debiased CKA needs batches of at least four samples")
    cross = float(np.mean([_hsic(one, two) for one, two in usable]))
    own = float(np.mean([_hsic(one, one) for one, _ in usable])), float(np.mean([_hsic(two, two) for _, two in usable]))
    return cross / math.sqrt(own[0] * own[1]) if min(own) > 0 else math.nan


def linear_cka(first: Matrix, second: Matrix) -> float:
    """Debiased linear CKA of two matrices with the same rows."""
    return debiased_cka([gram(first)], [gram(second)])


def _hsic(first: Matrix, second: Matrix) -> float:
    """Unbiased HSIC from two Gram matrices of the same n samples."""
    count = first.shape[0]
    one, two = first - np.diag(np.diag(first)), second - np.diag(np.diag(second))
    along = one.sum(axis=0) @ two.sum(axis=0)
    sums = one.sum() * two.sum() / ((count - 1) * (count - 2))
    return float(((one * two).sum() + sums - 2.0 * along / (count - 2)) / (count * (count - 3)))


def _check(rows: Matrix, share: float) -> None:
    if not 0.0 < share <= 1.0:
        raise ValueError(f"expected a share between 0 and 1, got {share}")
    if rows.ndim != 2 or rows.shape[0] < 2:
        raise ValueError(f"expected a matrix with at least two rows, got shape {rows.shape}")


def _matrix(values: Any) -> Matrix:
    return np.asarray(values, dtype=np.float64)


def _centred(rows: Matrix) -> Matrix:
    rows = _matrix(rows)
    return _matrix(rows - rows.mean(axis=0))


def _variances(centred: Matrix) -> Matrix:
    """Eigenvalues of the covariance, largest first; those that rounding makes are 0."""
    values = np.linalg.eigvalsh(_smaller_gram(centred))[::-1]
    return _matrix(np.where(values > CONSTANT * max(values[0], 0.0), values, 0.0) if len(values) else values)


def _smaller_gram(centred: Matrix) -> Matrix:
    """Both products have the same eigenvalues but for zeros; the smaller one is cheaper."""
    return _matrix(centred.T @ centred if centred.shape[1] <= centred.shape[0] else centred @ centred.T)


def _crossing(variances: Matrix, share: float) -> int:
    """The fewest leading variances that hold `share` of their sum; rounding does not add one."""
    sums = np.cumsum(variances)
    return int(np.searchsorted(sums, share * sums[-1] * (1 - 1e-12))) + 1


def _basis(rows: Matrix, share: float) -> Matrix:
    """Orthonormal columns for the principal directions that hold `share` of the variance (rows, directions)."""
    _check(rows, share)
    centred = _centred(rows)
    values, vectors = np.linalg.eigh(_smaller_gram(centred))
    values, vectors = values[::-1], vectors[:, ::-1]
    if not len(values) or values[0] <= 1e-20 * max(1.0, float(np.abs(rows).max())) ** 2:
        return np.zeros((rows.shape[0], 0))
    kept = values > CONSTANT * values[0]
    count = min(_crossing(values[kept], share), int(kept.sum()))
    columns = centred @ vectors[:, :count] if centred.shape[1] <= centred.shape[0] else vectors[:, :count]
    return np.linalg.qr(columns)[0]
