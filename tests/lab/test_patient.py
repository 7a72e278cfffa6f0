"""The patient: read from what users have, examined on copies, left as it was."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nndoctor.lab import Patient, Workbook


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def spoil(patient: Patient, train: bool) -> None:
    """An examination that changes all it can reach, draws random numbers and breaks off."""
    with patient.examined(train=train) as subject:
        subject.mean_loss().backward()
        with torch.no_grad():
            for parameter in subject.model.parameters():
                parameter.add_(1.0)
        torch.rand(3), random.random(), np.random.rand()
        raise RuntimeError("mid-way")


@pytest.mark.parametrize("train", [True, False])
def test_model_modes_gradients_and_generators_stay_as_they_were_also_on_an_error(small_patient: Patient, train: bool) -> None:
    model = small_patient.model.train(not train)
    model[3].eval()
    before, modes = state_of(model), [m.training for m in model.modules()]
    generators = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    with pytest.raises(RuntimeError, match="mid-way"):
        spoil(small_patient, train)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert random.getstate() == generators[1]
    assert np.array_equal(np.random.get_state()[1], generators[2])


def test_a_copy_is_in_eval_mode_and_its_loss_is_weighted_by_samples(small_patient: Patient) -> None:
    with small_patient.examined(dtype=torch.float64) as subject:
        assert not any(module.training for module in subject.model.modules())
        found = subject.evaluate()
        inputs = torch.cat([batch.args[0] for batch in subject.batches])
        labels = torch.cat([batch.targets for batch in subject.batches])
        outputs = subject.model(inputs)
        assert found.loss == pytest.approx(nn.functional.cross_entropy(outputs, labels).item(), rel=1e-12)
        assert found.accuracy == pytest.approx(float((outputs.argmax(1) == labels).double().mean()))
        assert float(subject.mean_loss().detach()) == pytest.approx(found.loss, rel=1e-12)
        assert outputs.dtype is torch.float64
    assert found.sizes == (16, 16, 4)
    assert small_patient.samples == 36


def test_in_training_mode_parts_that_the_user_keeps_in_eval_mode_stay_so(small_patient: Patient) -> None:
    small_patient.model.train()
    small_patient.model[1].eval()
    with small_patient.examined(train=True) as subject:
        assert subject.model.training
        assert not subject.model[1].training
        assert subject.model[3].training


def test_a_loader_is_read_without_touching_the_random_generators() -> None:
    data = TensorDataset(torch.randn(20, 6), torch.randint(0, 3, (20,)))
    loader = DataLoader(data, batch_size=8, shuffle=True)
    model, before = nn.Linear(6, 3), torch.get_rng_state()
    patient = Patient.of(model, nn.functional.cross_entropy, loader, max_batches=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert [batch.size for batch in patient.batches] == [8, 8]


def test_one_batch_is_taken_for_one_and_a_list_of_them_for_several() -> None:
    pair = (torch.randn(5, 6), torch.randint(0, 3, (5,)))
    for one in (pair, list(pair), [pair]):
        assert [batch.size for batch in Patient.of(nn.Linear(6, 3), nn.CrossEntropyLoss(), one).batches] == [5]
    assert len(Patient.of(nn.Linear(6, 3), nn.CrossEntropyLoss(), (pair, pair)).batches) == 2
    with pytest.raises(ValueError, match="at least one batch"):
        Patient.of(nn.Linear(6, 3), nn.CrossEntropyLoss(), [])
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module"):
        Patient.of(nn.Linear, nn.CrossEntropyLoss(), pair)  # type: ignore[arg-type]


def test_fingerprints_tell_weights_batches_and_settings_apart(small_patient: Patient) -> None:
    first = small_patient.fingerprint(5, "full")
    assert first == small_patient.fingerprint(5, "full")
    assert first != small_patient.fingerprint(6, "full")
    with torch.no_grad():
        small_patient.model[0].weight[0, 0] += 1e-6
    assert first != small_patient.fingerprint(5, "full")


def test_a_workbook_goes_on_where_a_kill_has_cut_off_a_line(tmp_path, small_patient: Patient) -> None:
    book = Workbook.of(tmp_path, "surface", small_patient, 21)
    book.put("a", 1.5)
    book.put("b", float("inf"))
    book.put_array("vector", np.arange(3.0))
    (folder,) = tmp_path.iterdir()
    with open(folder / "pieces.jsonl", "a", encoding="utf-8") as file:
        file.write('["c", 1.')
    again = Workbook.of(tmp_path, "surface", small_patient, 21)
    assert (again.get("a"), again.get("b"), "c" in again) == (1.5, float("inf"), False)
    assert again.done("a", lambda: pytest.fail("it was done")) == 1.5
    again.put("c", 2.0)
    once_more = Workbook.of(tmp_path, "surface", small_patient, 21)
    assert once_more.get("c") == 2.0
    assert np.array_equal(once_more.array("vector"), np.arange(3.0))
    assert once_more.array("other") is None
    assert len(Workbook.of(tmp_path, "surface", small_patient, 22)) == 0
