"""Frozen normalisation layers that still learn statistics, and those that have leave to."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from nndoctor.discovery import ModelIndex, twins
from nndoctor.probes.frozen_norms import FrozenNormProbe

X = torch.linspace(-1, 1, 24).reshape(8, 3)


class Net(nn.Module):
    def __init__(self, affine: bool = True, learnt: bool = True) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=affine), nn.ReLU())
        self.head = nn.Linear(4, 1)
        if learnt:
            self.backbone(X)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.backbone(x))
        return out


def updating(model: nn.Module) -> Tensor:
    """What the probe says of one training step, one value per layer."""
    probe = FrozenNormProbe()
    probe.attach(ModelIndex(model))
    probe.begin_step(1, True)
    loss = model(X).sum()
    probe.backward_begins(loss)
    found = probe.collect().get("norm.frozen_updating", torch.zeros(0))
    assert isinstance(found, torch.Tensor)
    return found


def test_a_frozen_layer_in_train_mode_is_found() -> None:
    model = Net()
    model.backbone.requires_grad_(False)
    assert updating(model).nan_to_num(-1).tolist() == [-1, 1, -1, -1]


def test_a_frozen_layer_in_eval_mode_stands_still() -> None:
    model = Net()
    model.backbone.requires_grad_(False).eval()
    assert updating(model).nan_to_num(-1).tolist() == [-1, 0, -1, -1]


@pytest.mark.parametrize("made", [lambda: Net(affine=False), lambda: Net()])
def test_layers_without_parameters_and_layers_that_train_are_left_out(made: type[Net]) -> None:
    assert not updating(made()).nan_to_num(0).any()


def test_statistics_that_were_never_learnt_may_be_learnt_now() -> None:
    model = Net(learnt=False)
    model.backbone.requires_grad_(False)
    assert not updating(model).nan_to_num(0).any()


def test_a_momentum_teacher_may_follow_its_student() -> None:
    class Student(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
            self.student(X)
            self.teacher = copy.deepcopy(self.student).requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return (self.student(x) - self.teacher(x)).square()

    model = Student()
    assert twins(ModelIndex(model)) == ((model.teacher, model.student),)
    assert not updating(model).nan_to_num(0).any()


def test_a_checkpoint_that_is_loaded_in_between_is_no_move() -> None:
    model, probe = Net(), FrozenNormProbe()
    model.backbone.requires_grad_(False).eval()
    probe.attach(ModelIndex(model))
    probe.begin_step(1, True)
    model.load_state_dict(Net().state_dict())
    probe.state_loaded(model, (), ())
    model.backbone.train()
    model.backbone.eval()
    probe.backward_begins(model(X).sum())
    found = probe.collect()["norm.frozen_updating"]
    assert isinstance(found, torch.Tensor)
    assert not found.nan_to_num(0).any()
