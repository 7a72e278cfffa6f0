"""Representations of real models: layers found, rows kept, checkpoints compared, the model left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nndoctor.lab import Patient
from nndoctor.lab import representation as module
from nndoctor.lab.representation import activations, compare, representation, self_similarity


class SmallCnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, padding=1)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(6, 8, 3, stride=2)
        self.fc = nn.Linear(8 * 9, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.relu(self.conv2(self.relu(self.conv1(images)))).flatten(1))


@pytest.fixture
def cnn() -> Patient:
    batches = [(torch.randn(40, 1, 8, 8), torch.randint(0, 4, (40,))) for _ in range(3)]
    return Patient.of(SmallCnn(), nn.CrossEntropyLoss(), batches)


def test_units_of_a_convolution_are_its_channels_and_rows_its_positions(cnn: Patient) -> None:
    with cnn.examined() as subject:
        found = {layer.name: layer for layer in activations(subject)}
        output = subject.model.conv1(subject.batches[0].args[0])
    assert {name: layer.rows.shape for name, layer in found.items()} == {"conv1": (1998, 6), "conv2": (3 * 40 * 9, 8), "fc": (120, 4)}
    assert np.allclose(found["conv1"].rows[0], output[0, :, 0, 0].detach().numpy())
    assert [g.shape for g in found["conv1"].grams] == [(40, 40)] * 3


def test_channels_of_sequences_are_last() -> None:
    model = nn.Sequential(nn.Embedding(9, 5), nn.Linear(5, 7), nn.ReLU())
    patient = Patient.of(model, lambda out, t: out.mean(), (torch.randint(0, 9, (30, 4)), torch.zeros(30)))
    with patient.examined() as subject:
        found = activations(subject, layers=["[0-9]"])
    assert [(layer.kind, layer.rows.shape) for layer in found] == [("Embedding", (120, 5)), ("Linear", (120, 7)), ("ReLU", (120, 7))]


def test_a_layer_of_low_rank_is_found_and_layers_are_like_themselves(cnn: Patient) -> None:
    with torch.no_grad():
        weight = cnn.model.conv1.weight
        weight[2:] = weight[:2].repeat(2, 1, 1, 1)
    found = representation(cnn)
    layers = {layer.name: layer.dimension for layer in found.layers}
    assert list(layers) == ["conv1", "conv2", "fc"]
    assert layers["conv1"].intrinsic <= 2
    assert layers["fc"].intrinsic > 2
    matrix = np.asarray(found.similarity)
    assert np.allclose(np.diag(matrix), 1.0)
    assert np.allclose(matrix, matrix.T)
    assert found.to_dict()["layers"][0]["dimension"]["units"] == 6


def test_patterns_choose_layers_and_unknown_ones_are_refused(cnn: Patient) -> None:
    assert [layer.name for layer in representation(cnn, layers=["conv*"]).layers] == ["conv1", "conv2"]
    with pytest.raises(ValueError, match="no layer is called nothing"):
        representation(cnn, layers=["nothing"])


def test_two_models_with_turned_units_are_alike_layer_by_layer(cnn: Patient) -> None:
    twin = SmallCnn()
    twin.load_state_dict(cnn.model.state_dict())
    order = torch.randperm(6)
    with torch.no_grad():
        twin.conv1.weight.copy_(cnn.model.conv1.weight[order])
        twin.conv1.bias.copy_(cnn.model.conv1.bias[order])
        twin.conv2.weight.copy_(cnn.model.conv2.weight[:, order])
    found = np.asarray(compare(cnn, Patient.of(twin, nn.CrossEntropyLoss(), [(torch.zeros(1, 1, 8, 8), torch.zeros(1).long())])))
    assert np.allclose(np.diag(found), 1.0, atol=1e-5)
    assert (found.argmax(axis=1) == np.arange(3)).all()


@pytest.fixture
def checkpoints(cnn: Patient) -> list[dict[str, Tensor]]:
    """conv1 does not change any more after the second; fc changes all the time."""
    states = []
    for number in range(4):
        if number:
            with torch.no_grad():
                if number == 1:
                    cnn.model.conv1.weight.normal_()
                cnn.model.fc.weight.normal_()
        states.append({name: tensor.clone() for name, tensor in cnn.model.state_dict().items()})
    return states


def test_layers_that_have_stopped_changing_are_like_themselves(cnn: Patient, checkpoints: list[dict[str, Tensor]]) -> None:
    found = self_similarity(cnn, checkpoints)
    for measure in ("svcca", "pwcca", "cka"):
        steps = np.asarray(found.to_previous[measure])
        assert steps.shape == (3, 3)
        assert np.allclose(steps[1:, 0], 1.0)
        assert steps[0, 0] < 0.95
        assert np.allclose(np.asarray(found.to_last[measure])[1:, 0], 1.0)
    assert found.converged(0.99) == {"conv1": "2", "conv2": "2", "fc": None}
    assert found.converged(0.99, "cka")["fc"] is None


def test_comparisons_that_are_done_are_not_done_again(
    cnn: Patient, checkpoints: list[dict[str, Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = self_similarity(cnn, checkpoints)
    compared = 0
    pairwise = module._pairwise

    def dying(first, second):
        nonlocal compared
        compared += 1
        if compared == 4:
            raise KeyboardInterrupt
        return pairwise(first, second)

    monkeypatch.setattr(module, "_pairwise", dying)
    with pytest.raises(KeyboardInterrupt):
        self_similarity(cnn, checkpoints, work=str(tmp_path))
    again = self_similarity(cnn, checkpoints, work=str(tmp_path))
    assert again.to_previous == whole.to_previous
    assert compared == 4 + 3


def test_one_checkpoint_is_not_enough(cnn: Patient) -> None:
    with pytest.raises(ValueError, match="at least two"):
        self_similarity(cnn, [cnn.model.state_dict()])
