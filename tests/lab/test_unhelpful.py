"""Which layers can go: those that were built to do nothing, and none that the loss needs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nndoctor.lab import Patient
from nndoctor.lab import unhelpful as module
from nndoctor.lab.unhelpful import unhelpful_layers


class Block(nn.Module):
    """A residual block; with `strength` 0 its branch adds nothing."""

    def __init__(self, width: int, strength: float) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width)
        self.strength = strength

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.strength * torch.tanh(self.fc(inputs))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(2, 16)
        self.useful = Block(16, 1.0)
        self.idle = Block(16, 0.0)
        self.head = nn.Linear(16, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.idle(self.useful(torch.relu(self.stem(inputs)))))


@pytest.fixture(scope="module")
def trained() -> Patient:
    """Two rings, learnt; `idle` never does anything."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(600, 2, generator=generator)
    labels = (inputs.norm(dim=1) > 1.1).long()
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return Patient.of(model, nn.CrossEntropyLoss(), list(zip(inputs.split(100), labels.split(100), strict=True)))


def test_a_block_that_does_nothing_can_go_and_no_other(trained: Patient) -> None:
    before = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
    found = unhelpful_layers(trained)
    effects = {effect.name: effect for effect in found.effects}
    assert list(effects) == ["stem", "useful.fc", "useful", "idle.fc", "idle", "head"]
    assert {name for name, effect in effects.items() if effect.verdict == "can go"} == {"idle", "idle.fc"}
    assert (effects["idle"].difference, effects["idle"].error) == (0.0, 0.0)
    assert effects["idle"].samples == 600
    assert effects["stem"].verdict == effects["head"].verdict == "needed"
    assert effects["stem"].samples == module.FIRST_LOOK
    assert found.together.names == ("idle",)
    assert found.together.parameters == effects["idle"].parameters == 16 * 16 + 16
    assert effects["idle"].step_share is not None
    assert effects["head"].step_share is None
    assert str(effects["idle"]).startswith("idle can go: +0.0000 ± 0.0000 loss, ")
    assert all(torch.equal(before[name], tensor) for name, tensor in trained.model.state_dict().items())
    assert "forward" not in vars(trained.model.idle)


def test_differences_are_those_of_a_model_rebuilt_without_the_layer(trained: Patient) -> None:
    effects = {effect.name: effect for effect in unhelpful_layers(trained, margin=100.0).effects}
    inputs = torch.cat([batch.args[0] for batch in trained.batches])
    labels = torch.cat([batch.targets for batch in trained.batches])
    model = trained.model
    with torch.no_grad():
        whole = functional.cross_entropy(model(inputs), labels, reduction="none")
        bypassed = functional.cross_entropy(model.head(torch.relu(model.stem(inputs))), labels, reduction="none")
        constant = functional.cross_entropy(model(inputs).mean(0).expand(600, 2), labels, reduction="none")
    useful, head = effects["useful"], effects["head"]
    assert (useful.way, head.way) == ("bypass", "mean")
    for effect, without in ((useful, bypassed), (head, constant)):
        difference = without - whole
        assert effect.difference == pytest.approx(difference.mean().item(), rel=1e-4)
        assert effect.error == pytest.approx((difference.std() / math.sqrt(600)).item(), rel=1e-4)
    assert effects["stem"].way == "mean"


def test_two_of_which_one_suffices_are_not_removed_together() -> None:
    class Twice(nn.Module):
        """The sum of two steep lines; either one decides alone, without both the slope is 2."""

        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(1, 1, bias=False)
            self.two = nn.Linear(1, 1, bias=False)
            nn.init.constant_(self.one.weight, 100.0)
            nn.init.constant_(self.two.weight, 100.0)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.one(inputs) + self.two(inputs)

    inputs = torch.rand(400, 1) + 1.0
    inputs[::2] *= -1
    patient = Patient.of(Twice(), nn.BCEWithLogitsLoss(), (inputs, (inputs > 0).float()))
    found = unhelpful_layers(patient, margin=0.03)
    assert {effect.name: effect.verdict for effect in found.effects} == {"one": "can go", "two": "can go"}
    assert found.together.names == ("one",)
    assert found.together.difference < 1e-6


def test_a_layer_inside_a_transformer_layer_is_really_left_out() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Flatten(), nn.Linear(32, 3))
    patient = Patient.of(model, nn.CrossEntropyLoss(), (torch.randn(30, 4, 8), torch.randint(0, 3, (30,))))
    fast = torch.backends.mha.get_fastpath_enabled()
    found = unhelpful_layers(patient)
    effects = {effect.name: effect for effect in found.effects}
    assert effects["0.layers.0.linear1"].difference != 0.0
    assert "0.layers.1.self_attn" in effects
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_a_module_that_is_called_twice_is_left_out_both_times() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.fc(torch.relu(self.fc(inputs)))

    patient = Patient.of(Shared(), nn.MSELoss(), (torch.randn(40, 4), torch.randn(40, 4)))
    (effect,) = unhelpful_layers(patient, margin=100.0).effects
    inputs, targets = patient.batches[0].args[0], patient.batches[0].targets
    expected = {
        "bypass": functional.mse_loss(torch.relu(inputs), targets),
        "mean": functional.mse_loss(patient.model(inputs).mean(0).expand(40, 4), targets),
    }
    with torch.no_grad():
        whole = functional.mse_loss(patient.model(inputs), targets)
    assert effect.difference == pytest.approx((min(expected.values()) - whole).item(), rel=1e-4)


class InPlace(nn.Module):
    """Writes into the outputs of its layers, and calls one of them again at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.two = nn.Linear(4, 4)
        self.three = nn.Linear(4, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.one(inputs)
        hidden += torch.relu_(self.two(hidden))
        return self.one(self.three(hidden))


@pytest.mark.parametrize("room", [2**30, 0])
def test_outputs_that_are_replayed_change_nothing_but_the_time(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    patient = Patient.of(InPlace(), nn.MSELoss(), [(torch.randn(40, 4), torch.randn(40, 4)) for _ in range(2)])
    monkeypatch.setattr(module, "REPLAY_BYTES", room)
    found = {effect.name: (effect.way, effect.difference) for effect in unhelpful_layers(patient, margin=-1e9).effects}
    model = patient.model
    inputs, targets = patient.batches[0].args[0][:32], patient.batches[0].targets[:32]
    whole = torch.cat([batch.args[0] for batch in patient.batches])
    with torch.no_grad():
        hidden = model.one(whole)
        hidden = hidden + torch.relu(model.two(hidden))
        means = {"two": model.two(model.one(whole)).mean(0), "three": model.three(hidden).mean(0)}

        def loss(two, three) -> float:
            hidden = model.one(inputs)
            hidden = hidden + torch.relu(two(hidden))
            return (functional.mse_loss(model.one(three(hidden)), targets) - functional.mse_loss(model(inputs), targets)).item()

        for name, mean in means.items():
            parts = {"two": model.two, "three": model.three}
            ways = {}
            for way, layer in (("bypass", lambda x: x.clone()), ("mean", lambda x, mean=mean: mean.expand(32, 4))):
                ways[way] = loss(**{**parts, name: layer})
            assert found[name][0] == min(ways, key=ways.get)
            assert found[name][1] == pytest.approx(min(ways.values()), rel=1e-4, abs=1e-7)


def test_replaying_saves_calls(trained: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    called = 0
    forward = nn.Linear.forward

    def counting(self: nn.Linear, inputs: Tensor) -> Tensor:
        nonlocal called
        called += 1
        return forward(self, inputs)

    monkeypatch.setattr(nn.Linear, "forward", counting)
    counts = []
    for room in (2**30, 0):
        monkeypatch.setattr(module, "REPLAY_BYTES", room)
        called = 0
        unhelpful_layers(trained, margin=-1e9)
        counts.append(called)
    assert counts[0] < counts[1]


def test_losses_that_are_no_mean_over_samples_are_compared_by_batch() -> None:
    def weighted(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, targets, weight=torch.tensor([1.0, 5.0, 0.2]))

    batches = [(torch.randn(20, 6), torch.randint(0, 3, (20,))) for _ in range(5)]
    found = unhelpful_layers(Patient.of(nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3)), weighted, batches), margin=100.0)
    assert [effect.samples for effect in found.effects] == [5, 5]


def test_an_examination_goes_on_where_it_was_killed(trained: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = unhelpful_layers(trained)
    asked: list[tuple[str, int]] = []
    look = module._look

    def dying(base, layer, ways, chunk, known, replay):
        asked.append((layer.name, len(chunk.targets)))
        if asked[-1] == ("idle.fc", 68) and asked.count(asked[-1]) == 1:
            raise KeyboardInterrupt
        return look(base, layer, ways, chunk, known, replay)

    monkeypatch.setattr(module, "_look", dying)
    with pytest.raises(KeyboardInterrupt):
        unhelpful_layers(trained, work=str(tmp_path))
    again = unhelpful_layers(trained, work=str(tmp_path))
    assert asked.count(("idle.fc", 68)) == 2
    assert asked.count(("stem", 32)) == asked.count(("idle", 68)) == 1
    assert [(e.name, e.difference, e.samples) for e in again.effects] == [(e.name, e.difference, e.samples) for e in whole.effects]
