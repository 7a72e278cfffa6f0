"""Preliminary experiments say what is enough, and the spread of subsets is the one that theory predicts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nndoctor.lab import Patient
from nndoctor.lab.preliminary import epoch_study, sgd_training, stability_study, training_size_study


def task(count: int) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(count, 5, generator=torch.Generator().manual_seed(count))
    return inputs, (inputs[:, 0] + inputs[:, 1] > 0).long()


def make() -> nn.Module:
    return nn.Linear(5, 2)


def training(lr: float = 0.5):  # type: ignore[no-untyped-def]
    return sgd_training(nn.functional.cross_entropy, lambda model: torch.optim.SGD(model.parameters(), lr=lr), batch_size=20)


@pytest.fixture
def judge() -> Patient:
    return Patient.of(make(), nn.CrossEntropyLoss(), task(600))


def test_the_epochs_that_are_enough_are_found(judge: Patient) -> None:
    study = epoch_study(make, training(), task(200), judge, 12, gain=0.01)
    accuracies = [point.accuracy or 0 for point in study.points]
    assert [point.epochs for point in study.points] == list(range(1, 13))
    assert accuracies[-1] > 0.95
    later = accuracies[study.enough.epochs - 1 :]
    assert max(later) - later[0] <= 0.01
    before = accuracies[study.enough.epochs - 2] if study.enough.epochs > 1 else -1
    assert max(accuracies) - before > 0.01


def test_one_call_of_an_epoch_study_is_like_the_other_and_leaves_the_generators_alone(judge: Patient) -> None:
    state = torch.get_rng_state()
    first, second = (epoch_study(make, training(), task(100), judge, 3) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)


def test_more_samples_make_a_better_model(judge: Patient) -> None:
    study = training_size_study(make, training, task(400), judge, [400, 8, 60], epochs=8)
    assert [point.samples for point in study.points] == [8, 60, 400]
    assert study.points[0].loss > study.points[2].loss


@pytest.mark.parametrize("size", [50, 200])
def test_the_spread_of_subsets_is_that_of_drawing_without_replacement(size: int) -> None:
    torch.manual_seed(3)
    study = stability_study(Patient.of(make(), nn.CrossEntropyLoss(), task(600)), [size, 600], subsets=400)
    spread = study.spreads[0]
    assert spread.deviation == pytest.approx(spread.expected, rel=0.25)
    assert spread.mean == pytest.approx(study.accuracy, abs=3 * spread.expected)
    assert study.spreads[1].deviation < 1e-12
    assert study.smallest(1e-6) == 600


def test_sizes_that_cannot_be_drawn_are_refused(judge: Patient) -> None:
    with pytest.raises(ValueError, match="from 1 to 600, got 601"):
        stability_study(judge, [601])
