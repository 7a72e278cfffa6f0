"""Curvature against closed forms and against the whole Hessian."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian
from torch.nn import functional

from nndoctor.lab import Patient
from nndoctor.lab import curvature as curvature_module
from nndoctor.lab.curvature import Hessian, climb, curvature, hessian_eigenpairs, twice_differentiable
from nndoctor.lab.gradients import flat
from nndoctor.lab.spectrum import power_eigenpairs


def whole_hessian(patient: Patient) -> Tensor:
    """The Hessian as a matrix, by torch.func, of the copy in evaluation mode and double precision."""
    with patient.examined(dtype=torch.float64) as subject, twice_differentiable():
        parameters = subject.parameters()
        shapes = {name: p.shape for name, p in parameters.items()}

        def loss(vector: Tensor) -> Tensor:
            parts = torch.split(vector, [p.numel() for p in parameters.values()])
            weights = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
            total = sum(batch.size for batch in subject.batches)
            losses = [subject.loss(functional_call(subject.model, weights, b.args), b) * b.size / total for b in subject.batches]
            return torch.stack(losses).sum()

        return hessian(loss)(flat(list(parameters.values()))).detach()


def leading(matrix: Tensor, count: int) -> list[float]:
    return sorted(torch.linalg.eigvalsh(matrix).tolist(), key=lambda value: -abs(value))[:count]


@pytest.fixture
def trained_net() -> Patient:
    """A small net after some steps, with batches of unequal size, so that negative curvature is left."""
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.BatchNorm1d(8), nn.Linear(8, 3))
    inputs, labels = torch.randn(50, 5), torch.randint(0, 3, (50,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for _ in range(30):
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return Patient.of(model, nn.CrossEntropyLoss(), list(zip(inputs.split(20), labels.split(20), strict=True)))


def test_linear_regression_has_the_eigenvalues_of_its_inputs_once_for_each_output() -> None:
    inputs, targets = torch.randn(100, 6), torch.randn(100, 2)
    patient = Patient.of(nn.Linear(6, 2, bias=False), nn.MSELoss(), (inputs, targets))
    exact = leading(2 * inputs.T @ inputs / (100 * 2), 3)
    found = hessian_eigenpairs(patient, 6)
    assert found.values == pytest.approx([value for value in exact for _ in range(2)], rel=1e-3)
    assert found.converged


def test_logistic_regression_has_the_eigenvalues_of_its_weighted_inputs() -> None:
    inputs, labels = torch.randn(200, 7), torch.randint(0, 2, (200, 1)).float()
    model = nn.Linear(7, 1, bias=False)
    patient = Patient.of(model, nn.BCEWithLogitsLoss(), (inputs, labels))
    chance = model(inputs).sigmoid().detach()
    exact = inputs.T @ (chance * (1 - chance) * inputs) / 200
    found = curvature(patient, "full", eigenvalues=5)
    assert found.eigen.values == pytest.approx(leading(exact, 5), rel=1e-3)
    assert abs(found.trace.value - float(exact.trace())) <= 3 * found.trace.error + 1e-6
    assert found.sharpness == pytest.approx(leading(exact, 1)[0], rel=1e-3)
    assert found.critical_learning_rate == pytest.approx(2 / found.sharpness)


@pytest.mark.parametrize("double", [False, True])
def test_eigenpairs_of_a_net_are_those_of_the_whole_hessian(trained_net: Patient, double: bool) -> None:
    matrix = whole_hessian(trained_net)
    found = hessian_eigenpairs(trained_net, 5, double=double, tolerance=1e-4)
    exact = leading(matrix, 5)
    assert found.values == pytest.approx(exact, rel=1e-3)
    for value, vector in zip(found.values, found.vectors.double(), strict=True):
        assert float((matrix @ vector - value * vector).norm()) < 1e-3 * abs(exact[0])


def test_the_ends_of_the_spectrum_and_deflated_power_iteration_agree_with_it(trained_net: Patient) -> None:
    matrix = whole_hessian(trained_net)
    exact = torch.linalg.eigvalsh(matrix).tolist()
    assert exact[0] < -1e-3, "the test needs negative curvature"
    smallest = hessian_eigenpairs(trained_net, 2, which="smallest", double=True, tolerance=1e-6)
    assert smallest.values == pytest.approx(exact[:2], rel=1e-3)
    with trained_net.examined(dtype=torch.float64) as subject:
        operator = Hessian(subject)
        power = power_eigenpairs(operator, operator.like, 3)
    assert power.values == pytest.approx(leading(matrix, 3), rel=1e-3)


@pytest.mark.parametrize(("room", "kept"), [(2**40, 3), (0, 0)])
def test_products_are_the_same_whether_graphs_are_kept_or_not(
    trained_net: Patient, room: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curvature_module, "GRAPH_BYTES", room)
    matrix = whole_hessian(trained_net)
    with trained_net.examined(dtype=torch.float64) as subject:
        operator = Hessian(subject)
        for vector in torch.randn(3, matrix.shape[0], dtype=torch.float64):
            assert torch.allclose(operator(vector), matrix @ vector, atol=1e-12)
        assert len(operator._kept) == kept


@pytest.mark.parametrize("affine", [True, False])
def test_norms_taken_apart_for_their_second_derivative_are_the_same_function(affine: bool) -> None:
    class Doubling(nn.BatchNorm2d):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    norms = nn.BatchNorm2d(4, affine=affine), Doubling(4, affine=affine), nn.BatchNorm2d(4, track_running_stats=False)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), *norms, nn.Flatten(), nn.BatchNorm1d(64, affine=affine))
    images = torch.randn(16, 2, 6, 6)
    for _ in range(3):
        model(3 + 2 * images)  # statistics that are not those they begin with
    patient = Patient.of(model, nn.CrossEntropyLoss(), (images, torch.randint(0, 64, (16,))))
    with patient.examined() as subject:
        before = subject.model(images)
        Hessian(subject)
        torch.testing.assert_close(subject.model(images), before, rtol=1e-5, atol=1e-5)
        apart = ["forward" in vars(norm) for norm in subject.model.children()]
    assert apart == [False, True, False, False, False, True]
    assert not any("forward" in vars(norm) for norm in model.children())


def test_traces_and_leading_eigenvalues_of_layers_are_those_of_the_blocks(trained_net: Patient) -> None:
    matrix = whole_hessian(trained_net)
    found = curvature(trained_net, "full", double=True)
    assert [layer.name for layer in found.layers] == ["0", "2", "3"]
    start = 0
    for layer in found.layers:
        block = matrix[start : start + layer.parameters, start : start + layer.parameters]
        start += layer.parameters
        assert layer.eigenvalue == pytest.approx(leading(block, 1)[0], rel=1e-2)
        assert abs(layer.trace - float(block.trace())) < 4 * layer.trace_error + 1e-9
    assert start == found.parameters == matrix.shape[0]
    assert sum(layer.trace for layer in found.layers) == pytest.approx(found.trace.value)


def test_attention_and_recurrent_networks_have_products() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(4, 4, batch_first=True)
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.head = nn.Linear(4, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            hidden, _ = self.rnn(inputs)
            seen, _ = self.attention(hidden, hidden, hidden, need_weights=False)
            return self.head(seen[:, -1])

    patient = Patient.of(Net(), nn.CrossEntropyLoss(), (torch.randn(12, 5, 4), torch.randint(0, 2, (12,))))
    found = curvature(patient, "business", double=True)
    assert found.eigen.converged
    assert found.noise.samples == 12


def test_frozen_parameters_are_no_part_of_the_hessian(trained_net: Patient) -> None:
    trained_net.model[0].requires_grad_(False)
    found = curvature(trained_net, "business")
    assert found.parameters == sum(p.numel() for p in trained_net.model[2:].parameters())
    assert [layer.name for layer in found.layers] == ["2", "3"]


def test_the_loss_is_not_found_lower_than_it_is_and_rises_along_the_curvature() -> None:
    inputs, targets = torch.randn(60, 4), torch.zeros(60, 1)
    model = nn.Linear(4, 1, bias=False)
    nn.init.zeros_(model.weight)
    with Patient.of(model, nn.MSELoss(), (inputs, targets)).examined(dtype=torch.float64) as subject:
        top = torch.linalg.eigh(2 * inputs.T.double() @ inputs.double() / 60)
        found = climb(subject, radius=0.1, hint=top.eigenvectors[:, -1])
        assert found.loss == 0.0
        assert found.rise == pytest.approx(0.5 * 0.1**2 * float(top.eigenvalues[-1]), rel=1e-3)
        assert torch.count_nonzero(subject.model.weight) == 0


def test_an_examination_goes_on_after_it_was_killed(trained_net: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = curvature(trained_net, "full")
    calls, limit = 0, -1
    product = Hessian.__call__

    def dying(self: Hessian, vector: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == limit:
            raise KeyboardInterrupt
        return product(self, vector)

    monkeypatch.setattr(Hessian, "__call__", dying)
    for deadly in (7, 150):
        limit, calls = deadly, 0
        with pytest.raises(KeyboardInterrupt):
            curvature(trained_net, "full", work=str(tmp_path))
    limit, calls = -1, 0
    again = curvature(trained_net, "full", work=str(tmp_path))
    assert again.eigen == whole.eigen
    assert (again.trace, again.density, again.layers) == (whole.trace, whole.density, whole.layers)
    resumed, calls = calls, 0
    curvature(trained_net, "full", work=str(tmp_path))
    assert calls == 0 < resumed


def test_the_result_is_plain_data(trained_net: Patient) -> None:
    found = curvature(trained_net, "full", learning_rate=0.1).to_dict()
    assert found["eigen"]["values"]
    assert "vectors" not in found["eigen"]
    assert set(found["layers"][0]) == {"name", "parameters", "trace", "trace_error", "eigenvalue", "residual"}


def test_what_a_preset_leaves_out_is_none(trained_net: Patient) -> None:
    found = curvature(trained_net, "economy")
    assert (found.eigen, found.trace, found.density, found.rise, found.step, found.layers) == (None, None, None, None, None, ())
    assert found.noise is not None
    with pytest.raises(ValueError, match="economy, business, full"):
        curvature(trained_net, "luxury")  # type: ignore[arg-type]
