"""Spectra from products alone, against spectra that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nndoctor.lab.spectrum import hutchinson_trace, lanczos_eigenpairs, power_eigenpairs, spectral_density


def with_spectrum(values: list[float], size: int = 60, dtype: torch.dtype = torch.float64) -> Tensor:
    """A symmetric matrix with `values` and, for the rest, eigenvalues spread over -0.1 .. 0.1."""
    spectrum = torch.cat((torch.tensor(values), torch.linspace(-0.1, 0.1, size - len(values)))).double()
    turn, _ = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64))
    return ((turn * spectrum) @ turn.T).to(dtype)


@pytest.mark.parametrize("solve", [lanczos_eigenpairs, power_eigenpairs])
def test_leading_eigenvalues_keep_their_signs(solve) -> None:
    matrix = with_spectrum([-9.0, 5.0, 3.0, -2.0])
    found = solve(lambda v: matrix @ v, matrix[0], 4)
    assert found.values == pytest.approx((-9.0, 5.0, 3.0, -2.0), rel=1e-3)
    assert found.converged
    residuals = (matrix @ found.vectors.T - found.vectors.T * torch.tensor(found.values)).norm(dim=0)
    assert residuals.tolist() == pytest.approx(found.residuals, abs=1e-9)


@pytest.mark.parametrize(("which", "wanted"), [("largest", (5.0, 3.0, 0.1)), ("smallest", (-9.0, -2.0, -0.1))])
def test_the_ends_of_the_spectrum_can_be_asked_for(which, wanted) -> None:
    matrix = with_spectrum([-9.0, 5.0, 3.0, -2.0])
    found = lanczos_eigenpairs(lambda v: matrix @ v, matrix[0], 3, which=which, tolerance=1e-6)
    assert found.values == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_eigenvalue_that_occurs_three_times_is_found_three_times(dtype: torch.dtype) -> None:
    matrix = with_spectrum([4.0, 4.0, 4.0, 2.0, 2.0], dtype=dtype)
    found = lanczos_eigenpairs(lambda v: matrix @ v, matrix[0], 5)
    assert found.values == pytest.approx((4.0, 4.0, 4.0, 2.0, 2.0), rel=1e-3)
    assert torch.allclose(found.vectors @ found.vectors.T, torch.eye(5, dtype=dtype), atol=1e-4)


def test_an_operator_of_low_rank_does_not_end_the_search_early() -> None:
    matrix = torch.zeros(30, 30, dtype=torch.float64)
    matrix[0, 0], matrix[1, 1] = 3.0, -1.0
    found = lanczos_eigenpairs(lambda v: matrix @ v, matrix[0], 4)
    assert found.values == pytest.approx((3.0, -1.0, 0.0, 0.0), abs=1e-9)
    nothing = lanczos_eigenpairs(torch.zeros_like, matrix[0], 3)
    assert nothing.values == (0.0, 0.0, 0.0)


def test_more_eigenvalues_than_there_are_come_back_as_all() -> None:
    matrix = with_spectrum([3.0, 2.0, 1.0], size=4)
    found = lanczos_eigenpairs(lambda v: matrix @ v, matrix[0], 9, tolerance=1e-9)
    exact = sorted(torch.linalg.eigvalsh(matrix).tolist(), key=lambda value: -abs(value))
    assert found.values == pytest.approx(exact, abs=1e-9)


def test_a_search_that_is_cut_short_says_that_it_has_not_converged() -> None:
    matrix = with_spectrum([], size=200)
    found = lanczos_eigenpairs(lambda v: matrix @ v, matrix[0], 5, max_steps=6)
    assert not found.converged


def test_the_trace_is_within_its_error_and_its_parts_add_up() -> None:
    matrix = with_spectrum([8.0, -3.0, 2.0])
    found = hutchinson_trace(lambda v: matrix @ v, matrix[0], parts=(20, 40), probes=400)
    assert abs(found.value - float(matrix.trace())) < 3 * found.error
    assert sum(found.parts) == pytest.approx(found.value)
    exact = [float(matrix[:20, :20].trace()), float(matrix[20:, 20:].trace())]
    for part, error, truth in zip(found.parts, found.part_errors, exact, strict=True):
        assert abs(part - truth) < 3 * error
    spread = [hutchinson_trace(lambda v: matrix @ v, matrix[0], probes=50, seed=1000 * s).value for s in range(40)]
    assert found.error * np.sqrt(400 / 50) == pytest.approx(np.std(spread), rel=0.35)


def test_the_trace_of_a_diagonal_is_exact_and_stops_early() -> None:
    diagonal = torch.arange(1.0, 11.0, dtype=torch.float64)
    found = hutchinson_trace(lambda v: diagonal * v, diagonal, tolerance=0.01)
    assert (found.value, found.error, found.probes) == (55.0, 0.0, 4)


def test_the_density_has_the_moments_of_the_spectrum() -> None:
    matrix = with_spectrum([3.0] * 20 + [-1.0] * 10, size=200)
    found = spectral_density(lambda v: matrix @ v, matrix[0], probes=20, steps=30)
    nodes, weights = np.asarray(found.nodes), np.asarray(found.weights)
    exact = torch.linalg.eigvalsh(matrix).numpy()
    assert weights.sum() == pytest.approx(1.0)
    assert weights @ nodes == pytest.approx(exact.mean(), abs=0.05)
    assert weights @ nodes**2 == pytest.approx((exact**2).mean(), rel=0.1)
    assert weights[nodes > 2].sum() == pytest.approx(0.1, abs=0.02)
    assert np.trapezoid(found.density, found.grid) == pytest.approx(1.0, abs=1e-2)


def test_the_density_of_a_small_spectrum_is_exact_where_the_space_is_invariant() -> None:
    diagonal = torch.tensor([1.0, 1.0, 5.0, 5.0], dtype=torch.float64)
    found = spectral_density(lambda v: diagonal * v, diagonal, probes=3)
    assert set(np.round(found.nodes, 9)) == {1.0, 5.0}
    assert found.negative_share == 0.0
