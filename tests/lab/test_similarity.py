"""Similarity and dimension by their properties: what must be 1, what must be small, what must not break."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nndoctor.lab.similarity import canonical_correlations, debiased_cka, dimension, gram, linear_cka, pwcca, svcca

MEASURES = [svcca, pwcca, linear_cka]


@pytest.mark.parametrize("measure", MEASURES)
def test_a_representation_is_like_itself_turned_moved_and_scaled(measure) -> None:
    rows = np.random.randn(400, 12) * np.linspace(1, 3, 12)
    turn, _ = np.linalg.qr(np.random.randn(12, 12))
    assert measure(rows, rows) == pytest.approx(1.0, abs=1e-9)
    assert measure(rows, 3.0 * rows @ turn + 5.0) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("measure", [svcca, pwcca])
def test_any_invertible_map_leaves_canonical_correlations_at_one(measure) -> None:
    rows = np.random.randn(500, 10)
    assert measure(rows, rows @ np.random.randn(10, 10)) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("measure", MEASURES)
def test_independent_representations_are_not_alike(measure) -> None:
    found = [measure(np.random.randn(2000, 10), np.random.randn(2000, 8)) for _ in range(5)]
    assert np.mean(found) < 0.1


def test_debiased_cka_of_independent_wide_representations_is_zero_on_average() -> None:
    found = [linear_cka(np.random.randn(60, 500), np.random.randn(60, 500)) for _ in range(40)]
    assert abs(np.mean(found)) < 3 * np.std(found) / math.sqrt(40) + 1e-3
    biased = []
    for _ in range(5):
        one, two = (g - g.mean(axis=0) for g in (np.random.randn(60, 500), np.random.randn(60, 500)))
        biased.append(np.linalg.norm(one.T @ two) ** 2 / (np.linalg.norm(one.T @ one) * np.linalg.norm(two.T @ two)))
    assert np.mean(biased) > 0.5, "the biased estimator is what debiasing is for"


def test_cka_over_batches_agrees_with_cka_over_all() -> None:
    rows = np.random.randn(800, 20)
    other = rows @ np.random.randn(20, 20) + 2.0 * np.random.randn(800, 20)
    batches = [debiased_cka([gram(p) for p in np.split(rows, 8)], [gram(p) for p in np.split(other, 8)]), linear_cka(rows, other)]
    assert batches[0] == pytest.approx(batches[1], abs=0.03)


def test_correlations_are_those_that_were_built_in() -> None:
    shared = np.random.randn(20000, 2)
    other = np.stack([0.9 * shared[:, 0] + math.sqrt(1 - 0.81) * np.random.randn(20000), np.random.randn(20000)], axis=1)
    found = canonical_correlations(shared, other)
    assert found[0] == pytest.approx(0.9, abs=0.01)
    assert found[1] < 0.03
    assert svcca(shared, other) == pytest.approx(0.45, abs=0.02)


def test_weights_by_projection_prefer_directions_that_carry_the_representation() -> None:
    rows = np.random.randn(3000, 2) * [10.0, 3.0]
    main, other = 10.0 * np.random.randn(3000, 2), 10.0 * np.random.randn(3000, 2)
    main[:, 0], other[:, 1] = rows[:, 0], rows[:, 1]
    assert svcca(rows, main) == pytest.approx(svcca(rows, other), abs=0.05) == pytest.approx(0.5, abs=0.05)
    assert pwcca(rows, main) == pytest.approx(10 / 13, abs=0.05)
    assert pwcca(rows, other) == pytest.approx(3 / 13, abs=0.05)


@pytest.mark.parametrize("measure", [svcca, pwcca])
def test_more_units_than_rows_are_handled(measure) -> None:
    hidden = np.random.randn(300, 5)
    wide = hidden @ np.random.randn(5, 4000) + 1e-3 * np.random.randn(300, 4000)
    assert measure(wide, hidden @ np.random.randn(5, 4000)) > 0.99
    assert math.isnan(measure(np.random.randn(300, 4000), np.random.randn(300, 4000)))


@pytest.mark.parametrize("measure", MEASURES)
def test_dead_units_change_nothing_and_a_constant_layer_cannot_be_compared(measure) -> None:
    rows = np.random.randn(200, 5)
    with_dead = np.concatenate((rows, np.zeros((200, 3)), np.full((200, 2), 7.0)), axis=1)
    assert measure(rows, with_dead) == pytest.approx(1.0, abs=1e-6)
    assert math.isnan(measure(np.ones((200, 4)), rows))


def test_rows_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="same inputs"):
        svcca(np.random.randn(10, 2), np.random.randn(11, 2))
    with pytest.raises(ValueError, match="same batches"):
        debiased_cka([np.eye(5)], [np.eye(6)])
    with pytest.raises(ValueError, match="four samples"):
        debiased_cka([np.eye(3)], [np.eye(3)])


def exactly_isotropic(rows: int, units: int) -> np.ndarray:
    """Rows whose covariance is a multiple of the identity, not only on average."""
    centred = np.random.randn(rows, units)
    centred -= centred.mean(axis=0)
    return np.linalg.qr(centred)[0]


def test_the_direction_that_crosses_the_share_counts() -> None:
    found = dimension(exactly_isotropic(500, 100))
    assert (found.intrinsic, found.saturation) == (99, 0.99)
    assert found.participation == pytest.approx(100.0)


@pytest.mark.parametrize("rank", [1, 3, 20])
def test_features_of_rank_r_fill_r_of_d(rank: int) -> None:
    embedding, _ = np.linalg.qr(np.random.randn(64, rank))
    found = dimension(exactly_isotropic(400, rank) @ embedding.T)
    assert found.saturation == rank / 64
    assert found.enough


def test_a_constant_layer_fills_nothing_and_few_rows_are_said() -> None:
    assert dimension(np.full((50, 8), 2.0)).intrinsic == 0
    assert not dimension(np.random.randn(20, 50)).enough
    with pytest.raises(ValueError, match="two rows"):
        dimension(np.zeros((1, 3)))
