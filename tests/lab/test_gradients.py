"""Gradient noise and step length against statistics computed the long way and steps whose length is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nndoctor.examinations.patient import NotExaminable
from nndoctor.lab import Patient
from nndoctor.lab.gradients import as_step, gradient_noise, mean_gradient, sample_gradients, step_length, step_of


def gradients_of(patient: Patient) -> np.ndarray:
    """The gradient of each sample, one backward pass each (samples, parameters)."""
    with patient.examined(dtype=torch.float64) as subject:
        rows = []
        for batch in subject.batches:
            for index in range(batch.size):
                loss = subject.batch_loss(batch.part(index, 1))
                found = torch.autograd.grad(loss, list(subject.parameters().values()))
                rows.append(torch.cat([g.flatten() for g in found]).numpy())
    return np.stack(rows)


def test_noise_and_tests_are_the_statistics_of_the_sample_gradients(small_patient: Patient) -> None:
    rows = gradients_of(small_patient)
    count, mean = len(rows), rows.mean(axis=0)
    with small_patient.examined(dtype=torch.float64) as subject:
        found = gradient_noise(subject)
        assert np.allclose(mean_gradient(subject).numpy(), mean)
    noise = rows.var(axis=0, ddof=1).sum()
    signal = mean @ mean - noise / count
    assert found.samples == count == 36
    assert found.noise == pytest.approx(noise)
    assert found.signal == pytest.approx(signal)
    along = rows @ mean / (mean @ mean)
    across = rows - np.outer(along, mean)
    assert found.norm_test == pytest.approx(math.sqrt(noise / count / (mean @ mean)))
    assert found.inner_product_test == pytest.approx(along.std(ddof=1) / math.sqrt(count))
    assert found.orthogonality_test == pytest.approx(math.sqrt((across**2).sum() / (mean @ mean) / count / (count - 1)))
    variance = rows.var(axis=0, ddof=1)
    alive = variance > 1e-25
    assert found.signal_to_noise == pytest.approx((mean[alive] ** 2 / variance[alive]).mean(), rel=1e-6)
    ratios = []
    for left in range(count):
        rest = np.delete(rows, left, axis=0)
        spread = rest.var(axis=0, ddof=1).sum()
        ratios.append(spread / (rest.mean(axis=0) @ rest.mean(axis=0) - spread / (count - 1)))
    if min(ratios) > 0:
        assert found.error == pytest.approx(math.sqrt((count - 1) * np.var(ratios)))


def test_a_known_noise_scale_is_found_within_its_error() -> None:
    """Gradients of 0.5 |w - x|² at w = 0 are -x: signal |mean|² = 4, noise trace = 8, scale 2."""

    class Points(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.place = nn.Parameter(torch.zeros(8))

        def forward(self, inputs: Tensor) -> Tensor:
            return self.place - inputs

    points = torch.randn(2000, 8) + torch.tensor([2.0, *[0.0] * 7])
    patient = Patient.of(Points(), lambda out, _: 0.5 * out.square().sum(1).mean(), (points, torch.zeros(2000)))
    with patient.examined() as subject:
        found = gradient_noise(subject)
    assert abs(found.noise_scale - 2.0) < 3 * found.error
    assert found.error < 0.2


def test_samples_that_vmap_cannot_handle_are_taken_one_by_one() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.fc(inputs) if float(inputs.sum()) < 1e9 else inputs[:, :2]

    inputs, labels = torch.randn(9, 3), torch.randint(0, 2, (9,))
    branching = Patient.of(Branching(), nn.CrossEntropyLoss(), (inputs, labels))
    plain = Patient.of(branching.model.fc, nn.CrossEntropyLoss(), (inputs, labels))
    squares = []
    for patient in (branching, plain):
        with patient.examined() as subject:
            squares.append(sample_gradients(subject, mean_gradient(subject)[None]).squares)
    assert np.allclose(squares[0], squares[1], rtol=1e-5)


def test_a_loss_that_is_no_mean_over_samples_is_not_examined() -> None:
    patient = Patient.of(nn.Linear(3, 2), nn.CrossEntropyLoss(reduction="sum"), (torch.randn(9, 3), torch.randint(0, 2, (9,))))
    with patient.examined() as subject, pytest.raises(NotExaminable, match="no mean over samples"):
        gradient_noise(subject)


@pytest.fixture
def parabola() -> Patient:
    """Mean of 0.5 * 4 * (w - t)² over targets t around 1: curvature 4, bottom at the mean of t."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    targets = 1.0 + 0.1 * torch.randn(64, 1)
    return Patient.of(model, lambda out, t: 2.0 * (out - t).square().mean(), (torch.ones(64, 1), targets))


@pytest.mark.parametrize(("rate", "alpha"), [(0.25, 0.0), (0.125, -0.5), (0.5, 1.0), (1e-4, -0.9996)])
def test_the_gauge_says_how_far_a_step_went_towards_the_bottom(parabola: Patient, rate: float, alpha: float) -> None:
    step = as_step(parabola, rate)
    with parabola.examined(dtype=torch.float64) as subject:
        found = step_length(subject, step.double())
    assert found.alpha == pytest.approx(alpha, abs=1e-4)
    assert found.curvature == pytest.approx(4.0, rel=1e-3)
    assert found.length == pytest.approx(rate * 4, rel=0.1)
    assert found.slopes[0] < 0


def test_the_error_of_the_gauge_is_the_spread_over_other_samples() -> None:
    alphas, errors = [], []
    for seed in range(60):
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        targets = 1.0 + 0.5 * torch.randn(50, 1, generator=torch.Generator().manual_seed(seed))
        patient = Patient.of(model, lambda out, t: 2.0 * (out - t).square().mean(), (torch.ones(50, 1), targets))
        with patient.examined(dtype=torch.float64) as subject:
            found = step_length(subject, torch.tensor([1.0], dtype=torch.float64))
        alphas.append(found.alpha)
        errors.append(found.error)
    assert np.mean(errors) == pytest.approx(np.std(alphas), rel=0.3)


def test_a_step_uphill_has_no_length_that_would_do(parabola: Patient) -> None:
    with parabola.examined() as subject:
        found = step_length(subject, torch.tensor([-0.3]))
        assert found.alpha == math.inf
        assert found.to_dict()["alpha"] is None
        with pytest.raises(NotExaminable, match="step is zero"):
            step_length(subject, torch.zeros(1))


def test_the_step_of_an_optimizer_is_made_on_copies(parabola: Patient) -> None:
    optimizer = torch.optim.SGD(parabola.model.parameters(), lr=0.25, momentum=0.9)
    assert step_of(parabola, optimizer) == pytest.approx(as_step(parabola, 0.25))
    assert torch.count_nonzero(parabola.model.weight) == 0
    assert not optimizer.state
    assert parabola.model.weight.grad is None
