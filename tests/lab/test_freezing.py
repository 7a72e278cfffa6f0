"""Freezing is real: not a bit of a frozen layer moves, the others train, and time is saved."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nndoctor.lab import Patient
from nndoctor.lab.freezing import (
    BatchNorm,
    FreezeBySchedule,
    FreezeBySimilarity,
    Freezer,
    backward_saved,
    layers_with_parameters,
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(6, 16)
        self.norm = nn.BatchNorm1d(16)
        self.fc2 = nn.Linear(16, 16)
        self.fc3 = nn.Linear(16, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.fc3(torch.relu(self.fc2(torch.relu(self.norm(self.fc1(inputs))))))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    model.train()
    for _ in range(steps):
        inputs = torch.randn(32, 6)
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), (inputs.sum(1) > 0).long()).backward()
        optimizer.step()


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.5),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, weight_decay=0.1),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("foreach", [True, False])
def test_frozen_weights_stay_to_the_last_bit_and_the_others_train(optimizer: str, foreach: bool) -> None:
    model = Net()
    stepping = OPTIMIZERS[optimizer](model.parameters())
    for group in stepping.param_groups:
        group["foreach"] = foreach
    train(model, stepping, 5)
    freezer = Freezer(model, batch_norm="eval")
    freezer.freeze("fc1", "norm")
    before = snapshot(model)
    train(model, stepping, 10)
    after = snapshot(model)
    for name in before:
        assert torch.equal(before[name], after[name]) == name.startswith(("fc1", "norm")), name
    assert freezer.frozen == ("fc1", "norm")


def test_setting_the_flag_alone_does_not_freeze_which_is_why_gradients_are_dropped() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train(model, optimizer, 3)
    model.fc1.weight.requires_grad_(False)
    before = model.fc1.weight.clone()
    optimizer.step()
    assert not torch.equal(before, model.fc1.weight)


@pytest.mark.parametrize(("batch_norm", "moves"), [("eval", False), ("train", True)])
def test_running_statistics_do_what_was_decided(batch_norm: BatchNorm, moves: bool) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    freezer = Freezer(model, batch_norm=batch_norm)
    freezer.freeze("norm")
    before = snapshot(model)
    train(model, optimizer, 3)
    assert torch.equal(before["norm.weight"], model.norm.weight)
    assert (not torch.equal(before["norm.running_mean"], model.norm.running_mean)) == moves
    freezer.thaw()
    train(model, optimizer, 1)
    assert model.norm.training
    assert not torch.equal(before["norm.weight"], model.norm.weight)
    assert not torch.equal(before["norm.running_mean"], model.norm.running_mean)


def test_what_never_trained_is_not_thawed_and_unknown_layers_are_refused() -> None:
    model = Net()
    model.fc1.bias.requires_grad_(False)
    freezer = Freezer(model, batch_norm="eval")
    freezer.freeze("fc1")
    freezer.freeze("fc1")
    freezer.thaw("fc1")
    assert model.fc1.weight.requires_grad
    assert not model.fc1.bias.requires_grad
    with pytest.raises(ValueError, match="no layer called fc9"):
        freezer.freeze("fc9")


def test_a_schedule_freezes_from_the_bottom_and_never_the_last() -> None:
    model = Net()
    schedule = FreezeBySchedule(Freezer(model, batch_norm="eval"), 8, layers_with_parameters(model))
    frozen = {step: schedule.update(step) for step in range(10)}
    assert {step: names for step, names in frozen.items() if names} == {2: ("fc1",), 4: ("norm",), 6: ("fc2",)}


def test_layers_freeze_when_they_stop_changing() -> None:
    model = Net()
    optimizer = torch.optim.SGD([{"params": model.fc1.parameters(), "lr": 0.0}, {"params": [*model.fc2.parameters(), *model.fc3.parameters()], "lr": 0.0}])
    patient = Patient.of(model, nn.CrossEntropyLoss(), (torch.randn(200, 6), torch.randint(0, 3, (200,))))
    freezer = Freezer(model, batch_norm="eval")
    rule = FreezeBySimilarity(freezer, patient, ("fc1", "fc2"), threshold=0.99)
    assert rule.update() == {}
    with torch.no_grad():
        model.fc2.weight.normal_()
        model.fc2.bias.normal_()
    found = rule.update()
    assert found["fc1"] == pytest.approx(1.0)
    assert found["fc2"] < 0.99
    assert freezer.frozen == ("fc1",)
    assert not model.fc1.weight.requires_grad
    assert optimizer.param_groups


def test_frozen_layers_at_the_bottom_save_backward_time_and_the_model_is_left_alone() -> None:
    model = nn.Sequential(*(nn.Linear(256, 256) for _ in range(8)), nn.Linear(256, 2))
    patient = Patient.of(model, nn.CrossEntropyLoss(), (torch.randn(256, 256), torch.randint(0, 2, (256,))))
    found = backward_saved(patient, [str(i) for i in range(8)])
    assert found.share > 0.3, "eight of nine layers need no backward pass at all"
    assert all(p.requires_grad for p in model.parameters())
