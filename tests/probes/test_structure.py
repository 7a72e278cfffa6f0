"""What lies between layers, and whose results are used: the mistake beside what looks like it and is meant so."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import Measured
from nndoctor.probes.structure import StructureProbe, linear_pairs, read_graph

X = torch.linspace(-1, 1, 8 * 12).reshape(8, 12)
IMAGES = torch.linspace(-1, 1, 4 * 3 * 8 * 8).reshape(4, 3, 8, 8)


def pairs(model: nn.Module, inputs: Tensor = X) -> dict[str, float]:
    index = ModelIndex(model)
    loss = model(inputs).square().mean()
    return {index.layer_names[layer]: value for layer, value in linear_pairs(read_graph([loss.grad_fn]), index).items()}


def mlp(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


def test_layers_in_a_row_are_one_layer() -> None:
    assert pairs(mlp(nn.Linear(12, 16), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))) == {"0": 1, "1": 0, "3": 0}


def test_a_net_of_linear_layers_alone_is_told() -> None:
    assert pairs(mlp(nn.Linear(12, 16), nn.Linear(16, 3))) == {"0": 1, "1": 0}


@pytest.mark.parametrize("between", [nn.Identity(), nn.Dropout(0.5), nn.Unflatten(1, (4, 4))])
def test_what_does_not_bend_the_values_does_not_count(between: nn.Module) -> None:
    back = nn.Flatten(1)
    found = pairs(mlp(nn.Linear(12, 16), between, back, nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)))
    assert found["0"] == 1


@pytest.mark.parametrize("between", [nn.ReLU(), nn.GELU(), nn.Tanh(), nn.LayerNorm(16), nn.BatchNorm1d(16), nn.Softmax(1), nn.PReLU()])
def test_what_bends_the_values_is_seen(between: nn.Module) -> None:
    assert set(pairs(mlp(nn.Linear(12, 16), between, nn.Linear(16, 3))).values()) == {0.0}


def test_convolutions_in_a_row_are_told() -> None:
    model = mlp(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 2))
    assert pairs(model, IMAGES) == {"0": 1, "1": 0, "4": 0}


class Residual(nn.Module):
    """The first layer's output is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(12, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        stream = self.first(inputs)
        return self.head(torch.relu(stream + self.second(stream)))


class LowRank(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base, self.down, self.up, self.head = nn.Linear(12, 16), nn.Linear(12, 2), nn.Linear(2, 16), nn.Linear(16, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(torch.relu(self.base(inputs) + self.up(self.down(inputs))))


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (Residual(), X),
        (LowRank(), X),
        (mlp(nn.Linear(12, 4), nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 2)), X),
        (mlp(nn.Linear(12, 16, bias=False), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2)), X),
        (mlp(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.Linear(16, 2)), X),
        (mlp(nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 3)), IMAGES),
        (mlp(nn.Conv2d(3, 8, (1, 3)), nn.Conv2d(8, 8, (3, 1)), nn.ReLU(), nn.Conv2d(8, 2, 3)), IMAGES),
        (mlp(nn.Conv2d(3, 8, 2, stride=2), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 2)), IMAGES),
        (nn.TransformerEncoderLayer(12, 2, 16, batch_first=True), X[None]),
    ],
    ids=["residual", "adapter", "bottleneck", "no bias", "embedding", "separable", "thin", "patches", "transformer"],
)
def test_what_may_be_meant_so_is_never_certain(model: nn.Module, inputs: Tensor) -> None:
    assert max(pairs(model, inputs).values()) < 1


def test_a_recurrent_net_after_a_projection_is_no_pair() -> None:
    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project, self.rnn, self.head = nn.Linear(12, 16), nn.RNN(16, 8, batch_first=True), nn.Linear(8, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            states, _ = self.rnn(self.project(inputs))
            return self.head(states[:, -1])

    assert set(pairs(Projected(), X[None]).values()) == {0.0}


class Model(nn.Module):
    """Two layers with something in between."""

    def __init__(self, between: Callable[[nn.Module, Tensor], Tensor], layer: nn.Module) -> None:
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(12, 16), layer, nn.Linear(16, 3)
        self.between = between

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.between(self.layer, self.first(inputs)))


def probed(model: nn.Module, inputs: Tensor = X, steps: int = 4) -> tuple[ModelIndex, Mapping[str, Measured]]:
    probe, index = StructureProbe(), ModelIndex(model)
    probe.attach(index)
    measured: Mapping[str, Measured] = {}
    for step in range(1, steps + 1):
        probe.begin_step(step, True)
        outputs = model(inputs)
        probe.forward_ended(model, outputs)
        loss = outputs.square().mean()
        probe.backward_begins(loss)
        loss.backward()
        measured = probe.collect() or measured
    probe.detach()
    return index, measured


def of_layer(model: nn.Module, signal: str, name: str, inputs: Tensor = X) -> float:
    index, measured = probed(model, inputs)
    return measured[signal][index.layer_names.index(name)]  # type: ignore[index,return-value]


def thrown_away(layer: nn.Module, hidden: Tensor) -> Tensor:
    layer(hidden)
    return hidden


@pytest.mark.parametrize("layer", [nn.ReLU(), nn.BatchNorm1d(16), nn.LayerNorm(16), nn.Dropout(0.5)])
def test_a_result_that_is_thrown_away_is_told(layer: nn.Module) -> None:
    assert of_layer(Model(thrown_away, layer), "layer.result_unused", "layer") == 1
    assert of_layer(Model(lambda called, hidden: called(hidden), layer), "layer.result_unused", "layer") == 0


def test_an_activation_in_place_is_used() -> None:
    index, measured = probed(Model(thrown_away, nn.ReLU(inplace=True)))
    assert measured.get("layer.result_unused", [0.0] * len(index.layers))[index.layer_names.index("layer")] != 1  # type: ignore[index]


def test_a_branch_behind_a_detach_is_no_mistake() -> None:
    class Teacher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student, self.relu, self.teacher, self.act = nn.Linear(12, 3), nn.ReLU(), nn.Linear(12, 3), nn.ReLU()

        def forward(self, inputs: Tensor) -> Tensor:
            return self.relu(self.student(inputs)) - self.act(self.teacher(inputs)).detach()

    index, measured = probed(Teacher())
    assert math.isnan(measured["layer.result_unused"][index.layer_names.index("act")])  # type: ignore[index,arg-type]


def test_what_the_model_returns_is_used() -> None:
    class TwoOutputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.softmax = nn.Linear(12, 3), nn.Softmax(1)

        def forward(self, inputs: Tensor) -> dict[str, Tensor]:
            logits = self.first(inputs)
            return {"logits": logits, "probabilities": self.softmax(logits)}

    model = TwoOutputs()
    probe, index = StructureProbe(), ModelIndex(model)
    probe.attach(index)
    measured: Mapping[str, Measured] = {}
    for step in range(1, 4):
        probe.begin_step(step, True)
        outputs = model(X)
        probe.forward_ended(model, outputs)
        probe.backward_begins(F.cross_entropy(outputs["logits"], torch.zeros(8, dtype=torch.long)))
        measured = probe.collect()
    assert measured["layer.result_unused"][index.layer_names.index("softmax")] == 0  # type: ignore[index]


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.LayerNorm(1), lambda hidden: hidden[:, :, None], 1.0),
        (nn.LayerNorm(16), lambda hidden: hidden, 0.0),
        (nn.GroupNorm(16, 16), lambda hidden: hidden, 1.0),
        (nn.GroupNorm(4, 16), lambda hidden: hidden, 0.0),
    ],
)
def test_a_normalisation_of_one_value_is_told(layer: nn.Module, shape: Callable[[Tensor], Tensor], expected: float) -> None:
    model = Model(lambda called, hidden: called(shape(hidden)).reshape(hidden.shape), layer)
    assert of_layer(model, "layer.constant_by_shape", "layer") == expected


def test_the_width_that_everything_passes_through() -> None:
    model = mlp(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 2), nn.ReLU(), nn.Linear(2, 3))
    index, measured = probed(model)
    passage = dict(zip(index.layer_names, measured["layer.passage"], strict=True))  # type: ignore[arg-type]
    assert (passage["0"], passage["2"]) == (16, 2)
    assert math.isnan(passage["4"])


def test_a_branch_around_a_narrow_layer_is_a_way_through() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.gate, self.head = nn.Linear(12, 16), nn.Linear(16, 1), nn.Linear(16, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            hidden = torch.relu(self.wide(inputs))
            return self.head(hidden * torch.sigmoid(self.gate(hidden)))

    index, measured = probed(Gated())
    assert "layer.passage" not in measured or math.isnan(measured["layer.passage"][index.layer_names.index("gate")])  # type: ignore[index,arg-type]


@pytest.mark.parametrize(("length", "expected"), [(1, 1.0), (5, 0.0)])
def test_attention_over_one_position_is_told(length: int, expected: float) -> None:
    for attention in (nn.MultiheadAttention(12, 2, batch_first=True), nn.TransformerEncoderLayer(12, 2, 8, batch_first=True)):

        class Attending(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embed, self.attention = nn.Linear(12, 12), attention  # noqa: B023

            def forward(self, inputs: Tensor) -> Tensor:
                tokens = self.embed(inputs)
                attend = self.attention
                return attend(tokens, tokens, tokens)[0] if isinstance(attend, nn.MultiheadAttention) else attend(tokens)

        _, measured = probed(Attending(), torch.randn(4, length, 12))
        assert measured["model.attends_to_one"] == expected


def test_the_probability_of_dropouts_between_layers_is_told() -> None:
    model = mlp(nn.Dropout(0.4), nn.Linear(12, 16), nn.ReLU(), nn.Dropout(0.9), nn.Linear(16, 3))
    index, measured = probed(model)
    found = dict(zip(index.layer_names, measured["layer.dropout"], strict=True))  # type: ignore[arg-type]
    assert found["3"] == 0.9
    assert math.isnan(found["0"])


def test_the_structure_is_read_a_few_times_only() -> None:
    model = mlp(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3))
    probe = StructureProbe()
    probe.attach(ModelIndex(model))
    told = 0
    for step in range(1, 20):
        probe.begin_step(step, True)
        probe.backward_begins(model(X).sum())
        told += bool(probe.collect())
    assert told == 5
    assert not model[1]._forward_hooks
