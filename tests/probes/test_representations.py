"""Embeddings that a loss compares are found however it compares them, and their spread is that of the formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nndoctor.probes.representations import RepresentationProbe, compared_by, differences

SAMPLES, WIDTH = 16, 8


def pair() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    one, other = (torch.randn(SAMPLES, WIDTH, requires_grad=True) * 1.0 for _ in range(2))
    return one, other


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, b: -F.cosine_similarity(a, b).mean(),
        lambda a, b: F.cross_entropy(F.normalize(a, dim=1) @ F.normalize(b, dim=-1).t() / 0.1, torch.arange(SAMPLES)),
        lambda a, b: (a / a.norm(dim=1, keepdim=True) * b).sum(1).mean(),
        lambda a, b: torch.cdist(a, b).mean(),
    ],
)
def test_embeddings_are_found_behind_the_comparison(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    one, other = pair()
    found = compared_by(loss(one, other))
    assert found is not None
    assert any(torch.equal(found[0], embeddings) for embeddings in (one, other))


def test_differences_of_pairs_stand_for_them() -> None:
    found = compared_by(F.triplet_margin_loss(*pair(), torch.randn(SAMPLES, WIDTH)))
    assert found is not None
    assert found[0].shape == (SAMPLES, WIDTH)


def test_penalties_on_weights_and_norms_over_samples_are_no_comparison() -> None:
    one, other = pair()
    layer = nn.Linear(WIDTH, SAMPLES)
    assert compared_by(F.mse_loss(one, other) + layer.weight.norm(dim=1).sum()) is None
    assert compared_by(one.norm()) is None
    assert compared_by(one.norm(dim=0).mean()) is None


def test_spread_is_one_for_even_directions_and_zero_for_a_single_one() -> None:
    even = torch.randn(256, 64, generator=torch.Generator().manual_seed(0))
    measured = {name: float(torch.as_tensor(value)) for name, value in differences(even).items()}
    directions = F.normalize(even, dim=1)
    assert measured["representation.spread"] == pytest.approx(float(directions.std(0, correction=0).square().mean().sqrt() * 8), rel=1e-4)
    assert measured["representation.spread"] == pytest.approx(1, abs=0.01)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(directions.t(), correction=0))
    expected = float(eigenvalues.sum() ** 2 / eigenvalues.square().sum())
    assert measured["representation.dimensions"] == pytest.approx(expected, rel=1e-3)
    alike = torch.ones(32, 64) * torch.arange(1, 33).unsqueeze(1)
    assert float(torch.as_tensor(differences(alike)["representation.spread"])) == pytest.approx(0, abs=1e-5)


def test_what_is_not_sampled_is_not_looked_at() -> None:
    probe = RepresentationProbe()
    probe.begin_step(1, False)
    probe.backward_begins(F.cosine_similarity(*pair()).mean())
    assert probe.collect() == {}
    probe.begin_step(2, True)
    probe.backward_begins(F.cosine_similarity(*pair()).mean())
    assert set(probe.collect()) == set(probe.signals)
