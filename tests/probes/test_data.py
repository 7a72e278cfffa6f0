"""What is said about the batches that enter the model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nndoctor.discovery import ModelIndex
from nndoctor.probes.data import DataProbe, first_tensor, input_statistics, last_tensor


def looks(batches: list[torch.Tensor], model: nn.Module | None = None) -> list[dict[str, float]]:
    probe = DataProbe()
    index = ModelIndex(model or nn.Linear(2, 2))
    index.called(0)
    probe.attach(index)
    found = []
    for step, batch in enumerate(batches, 1):
        probe.begin_step(step, True)
        probe.forward_begins(None, (batch,), {})
        found.append({name: float(value) for name, value in probe.collect().items()})  # type: ignore[arg-type]
    return found


def test_the_same_batch_again_is_counted_and_another_one_starts_anew() -> None:
    a, b = torch.rand(16, 4), torch.rand(16, 4)
    assert [f["input.repeated"] for f in looks([a, a.clone(), a, b, a])] == [0, 1, 2, 0, 0]


def test_different_digits_on_black_borders_are_different_batches() -> None:
    batches = []
    for seed in range(4):
        image = torch.zeros(64, 1, 28, 28)
        image[:, :, 6:22, 6:22] = torch.rand(64, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
        batches.append(image)
    assert [f["input.repeated"] for f in looks(batches)] == [0, 0, 0, 0]


def test_a_batch_of_another_size_is_another_batch() -> None:
    assert [f["input.repeated"] for f in looks([torch.zeros(8, 4), torch.zeros(4, 4)])] == [0, 0]


def test_token_ids_have_a_fingerprint_but_no_scale() -> None:
    found = looks([torch.randint(0, 50, (8, 16))])[0]
    assert set(found) == {"input.batch_size", "input.repeated"}


def test_statistics_match_torch() -> None:
    x = torch.randn(256, 6) * torch.tensor([1.0, 1, 1, 1, 1, 500]) + 3
    found = {name: float(value) for name, value in input_statistics(x).items()}  # type: ignore[arg-type]
    assert found["input.mean"] == pytest.approx(float(x.mean()), rel=1e-4)
    assert found["input.std"] == pytest.approx(float(x.std(correction=0)), rel=1e-4)
    assert (found["input.min"], found["input.max"]) == (float(x.min()), float(x.max()))
    spread = x.std(0)
    assert found["input.feature_spread"] == pytest.approx(float(spread.max() / spread.median()), rel=1e-4)


def test_nonfinite_inputs_are_counted_and_kept_out_of_the_moments() -> None:
    x = torch.ones(10, 3)
    x[2, 1] = torch.nan
    found = {name: float(value) for name, value in input_statistics(x).items()}  # type: ignore[arg-type]
    assert (found["input.nonfinite"], found["input.mean"], found["input.std"]) == (1, 1, 0)


def test_a_model_that_begins_with_a_normalisation_is_recognised() -> None:
    x = torch.rand(16, 4)
    assert looks([x], nn.BatchNorm1d(4))[0]["input.normalised_by_model"] == 1
    assert looks([x], nn.Linear(4, 4))[0]["input.normalised_by_model"] == 0


def test_tensors_are_found_inside_what_loaders_make() -> None:
    ids, image, label = torch.zeros(2, dtype=torch.long), torch.zeros(2, 3), torch.ones(2)
    assert first_tensor({"ids": ids, "pixels": [image]}) is image
    assert last_tensor((image, label)) is label
    assert last_tensor({"x": image, "labels": label}) is label
    assert last_tensor((image,)) is None


def test_a_scalar_beside_the_batch_is_not_the_input() -> None:
    tokens = torch.ones(4, 3, dtype=torch.long)
    assert first_tensor({"input_ids": tokens, "num_items_in_batch": torch.tensor(12.0)}) is tokens
    assert first_tensor([torch.tensor(2.0)]).item() == 2.0, "where there is nothing else"
