"""Paths begin, turn and end exactly where they should, at the level of model, layer and parameter."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nndoctor.lab import Patient
from nndoctor.lab.impacts import layer_impacts
from nndoctor.lab.paths import (
    PathCurve,
    layer_paths,
    model_paths,
    parameter_paths,
    real_path,
    travelled_by_layer,
)
from nndoctor.lab.points import blended, recompute_norms


class Training:
    """A small classifier trained for some epochs, with the weights of every epoch."""

    def __init__(self, *, norm: bool = False) -> None:
        generator = torch.Generator().manual_seed(3)
        self.inputs = torch.randn(240, 6, generator=generator)
        self.labels = (self.inputs[:, :3].sum(1) > 0).long() + (self.inputs[:, 3] > 0.5).long()
        between = [nn.BatchNorm1d(16)] if norm else []
        self.model = nn.Sequential(nn.Linear(6, 16), *between, nn.ReLU(), nn.Linear(16, 3))
        self.states = [copy.deepcopy(self.model.state_dict())]
        optimizer = torch.optim.Adam(self.model.parameters(), lr=0.02)
        for _ in range(10):
            for start in range(0, 240, 40):
                loss = nn.functional.cross_entropy(self.model(self.inputs[start : start + 40]), self.labels[start : start + 40])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            self.states.append(copy.deepcopy(self.model.state_dict()))
        self.patient = Patient.of(self.model, nn.CrossEntropyLoss(), list(self.batches()))

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, 240, 60):
            yield self.inputs[start : start + 60], self.labels[start : start + 60]

    def loss_of(self, state: dict[str, Tensor]) -> float:
        """The loss computed the plain way."""
        model = copy.deepcopy(self.model).eval()
        model.load_state_dict(state)
        with torch.no_grad():
            losses = [float(nn.functional.cross_entropy(model(x), y)) for x, y in self.batches()]
        return sum(losses) / len(losses)


@pytest.fixture(scope="module")
def training() -> Training:
    torch.manual_seed(0)
    return Training()


def test_both_paths_of_the_model_are_exact_at_zero_half_and_one(training: Training) -> None:
    first, middle, last = training.states[0], training.states[5], training.states[-1]
    paths = model_paths(training.patient, first, middle=middle, alphas=(0, 0.5, 1))
    linear, quadratic = paths.of("model"), paths.of("model", "quadratic")
    assert linear.losses[0] == quadratic.losses[0] == training.loss_of(first)
    assert linear.losses[2] == quadratic.losses[2] == training.loss_of(last)
    assert quadratic.losses[1] == training.loss_of(middle)
    assert linear.losses[1] == training.loss_of({name: (first[name] + last[name]) / 2 for name in first})


def test_weights_on_the_way_are_bit_by_bit_those_of_the_checkpoints() -> None:
    first, middle, last = torch.randn(3, 50)
    assert torch.equal(blended(0.0, first, last), first)
    assert torch.equal(blended(1.0, first, last), last)
    for alpha, expected in ((0.0, first), (0.5, middle), (1.0, last)):
        assert torch.equal(blended(alpha, first, last, middle), expected)


def test_a_parabola_through_the_middle_of_the_line_is_the_line() -> None:
    first, last = torch.randn(2, 50, dtype=torch.float64)
    for alpha in (-0.5, 0.2, 0.7, 1.5):
        assert torch.allclose(blended(alpha, first, last, (first + last) / 2), blended(alpha, first, last), atol=1e-12)


def test_a_layer_at_zero_is_the_model_with_that_layer_as_it_was_at_first(training: Training) -> None:
    first, last = training.states[0], training.states[-1]
    paths = layer_paths(training.patient, first, middle=training.states[5], alphas=(0, 1))
    assert [curve.target for curve in paths.curves] == ["0", "0", "2", "2"]
    for layer in ("0", "2"):
        reset = {name: (first if name.startswith(f"{layer}.") else last)[name] for name in last}
        assert paths.of(layer).losses == (training.loss_of(reset), training.loss_of(last))


def test_a_single_parameter_moves_alone_and_beyond_both_ends(training: Training) -> None:
    first, last = training.states[0], training.states[-1]
    paths = parameter_paths(training.patient, first, elements=[("0.weight", (3, 2))], alphas=(-0.5, 0, 1, 1.5))
    for alpha, loss in zip((-0.5, 0, 1, 1.5), paths.of("0.weight[3, 2]").losses, strict=True):
        state = {name: tensor.clone() for name, tensor in last.items()}
        state["0.weight"][3, 2] = (1 - alpha) * first["0.weight"][3, 2] + alpha * last["0.weight"][3, 2]
        assert loss == pytest.approx(training.loss_of(state), abs=1e-7)


def test_drawn_parameters_come_from_every_layer_and_depend_on_the_seed(training: Training) -> None:
    def targets(seed: int) -> list[str]:
        return [c.target for c in parameter_paths(training.patient, training.states[0], elements=4, alphas=(1,), seed=seed).curves]

    assert len(targets(0)) == 8 == len(set(targets(0)))
    assert sum(target.startswith("0.") for target in targets(0)) == 4
    assert targets(0) == targets(0) != targets(1)


def test_critical_layers_cannot_be_put_back_and_ambient_ones_can(training: Training) -> None:
    first = {name: tensor.clone() for name, tensor in training.states[-1].items()}
    first["2.weight"] = -first["2.weight"]
    impacts = layer_impacts(training.patient, first)
    assert impacts.critical == ("2",)
    assert impacts.ambient == ("0",)
    assert impacts.layers[0].loss_change == 0 == impacts.layers[0].travelled
    assert impacts.layers[1].relative == pytest.approx(((first["2.weight"] * 2).square().sum() / (first["2.weight"].square().sum() + first["2.bias"].square().sum())).sqrt())


def test_the_real_path_has_the_losses_of_the_checkpoints_and_both_ends_of_the_straight_one(training: Training) -> None:
    real = real_path(training.patient, training.states)
    assert real.alphas == tuple(index / 10 for index in range(11))
    assert real.losses == tuple(training.loss_of(state) for state in training.states)
    linear = model_paths(training.patient, training.states[0], alphas=(0, 1)).of("model")
    assert (real.losses[0], real.losses[-1]) == linear.losses


def test_distances_are_euclidean(training: Training) -> None:
    moved, relative = travelled_by_layer(training.patient, training.states[0])["2"]
    difference = [training.states[-1][name] - training.states[0][name] for name in ("2.weight", "2.bias")]
    expected = sum(float(d.double().square().sum()) for d in difference) ** 0.5
    assert moved == pytest.approx(expected)
    length = sum(float(training.states[0][name].double().square().sum()) for name in ("2.weight", "2.bias")) ** 0.5
    assert relative == pytest.approx(expected / length)


def test_a_barrier_is_the_rise_above_the_line_between_the_ends() -> None:
    curve = PathCurve("linear", "model", (0.0, 0.5, 1.0), (1.0, 2.0, 0.0), (None,) * 3, 1.0, 1.0)
    assert curve.barrier == pytest.approx(1.5)
    assert PathCurve("linear", "model", (0.0, 0.5, 1.0), (1.0, 0.2, 0.0), (None,) * 3, 1.0, 1.0).barrier == 0


def test_the_model_is_untouched_also_by_an_error(training: Training) -> None:
    before = copy.deepcopy(training.model.state_dict())
    with pytest.raises(ValueError, match="no layer 'nowhere'"):
        layer_paths(training.patient, training.states[0], layers=["0", "nowhere"], alphas=(0,))
    assert all(torch.equal(tensor, before[name]) for name, tensor in training.model.state_dict().items())


def test_finished_points_are_not_computed_again(training: Training, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    whole = model_paths(training.patient, training.states[0], work=tmp_path)
    pieces = next(tmp_path.glob("path-*/pieces.jsonl"))
    lines = pieces.read_text().splitlines(keepends=True)
    assert len(lines) == 21
    pieces.write_text("".join(lines[:7]) + lines[7][:10])  # killed in the middle of a line
    again = model_paths(training.patient, training.states[0], work=tmp_path, progress=lambda task, done, total: told.append((done, total)))
    assert again == whole
    assert told[-1] == (21, 21)
    assert pieces.read_text().splitlines() == [line.rstrip() for line in lines]


def test_weights_of_another_model_are_refused(training: Training) -> None:
    with pytest.raises(ValueError, match=r"0\.weight of shape"):
        model_paths(training.patient, nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)))


def test_recomputed_batchnorm_statistics_are_those_of_the_batches() -> None:
    torch.manual_seed(1)
    training = Training(norm=True)
    with training.patient.examined() as subject:
        recompute_norms(subject)
        norm = subject.model[1]  # type: ignore[index]
        hidden = [subject.model[0](x) for x, _ in training.batches()]  # type: ignore[index]
        assert torch.allclose(norm.running_mean, torch.stack([h.mean(0) for h in hidden]).mean(0), atol=1e-6)
        assert torch.allclose(norm.running_var, torch.stack([h.var(0) for h in hidden]).mean(0), atol=1e-6)
        assert not norm.training
        assert norm.momentum == 0.1
    between = model_paths(training.patient, training.states[0], alphas=(0.5,)).of("model").losses
    recomputed = model_paths(training.patient, training.states[0], alphas=(0.5,), recompute_batchnorm=True).of("model").losses
    assert between != recomputed


def test_layers_that_were_put_back_before_a_kill_are_not_put_back_again(training: Training, tmp_path: Path) -> None:
    whole = layer_impacts(training.patient, training.states[0], work=tmp_path)
    pieces = next(tmp_path.glob("impact-*/pieces.jsonl"))
    lines = pieces.read_text().splitlines(keepends=True)
    pieces.write_text("".join(lines[:3]))
    assert layer_impacts(training.patient, training.states[0], work=tmp_path) == whole
    assert len(lines) == 4 == len(pieces.read_text().splitlines())


def test_random_weights_are_drawn_for_one_layer_and_always_the_same(training: Training) -> None:
    impacts = layer_impacts(training.patient, training.states[0], layers=["2"], draws=3)
    assert impacts == layer_impacts(training.patient, training.states[0], layers=["2"], draws=3)
    torch.manual_seed(0)
    state = {name: tensor.clone() for name, tensor in training.states[-1].items()}
    fresh = nn.Linear(16, 3)
    state["2.weight"], state["2.bias"] = fresh.weight.detach(), fresh.bias.detach()
    first = training.loss_of(state) - training.loss_of(training.states[-1])
    one = layer_impacts(training.patient, training.states[0], layers=["2"], draws=1).layers[0]
    assert one.random_loss_change == pytest.approx(first, abs=1e-6)
    assert impacts.layers[0].random_spread > 0
    assert layer_impacts(training.patient, training.states[0]).layers[0].random_loss_change is None
