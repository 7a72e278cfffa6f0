"""Which modules count as models, and what their layers are called."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nndoctor.discovery import ModelIndex


class Adversaries(nn.Module):
    """Holds two networks and is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        self.critics = nn.ModuleList([nn.Linear(3, 1), nn.Linear(3, 1)])


class WithOwn(Adversaries):
    """The same with a tensor of its own, which belongs to no child."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(1))


class Called(Adversaries):
    def forward(self, x: Tensor) -> Tensor:
        return x


def test_a_module_that_only_holds_others_stands_for_them() -> None:
    assert list(ModelIndex(Adversaries()).roots) == ["generator", "critics.0", "critics.1"]
    assert list(ModelIndex({"gan": Adversaries()}).roots) == ["gan.generator", "gan.critics.0", "gan.critics.1"]


def test_a_module_that_is_called_or_owns_tensors_stands_for_itself() -> None:
    assert list(ModelIndex(Called()).roots) == [""]
    assert list(ModelIndex(WithOwn()).roots) == [""]


def test_layers_are_called_alike_whoever_is_called() -> None:
    assert ModelIndex(Adversaries()).layer_names == ModelIndex(Called()).layer_names


def test_what_torch_compile_returns_is_a_model_and_no_container() -> None:
    model = torch.compile(nn.Sequential(nn.Linear(2, 2)), backend="eager")
    assert list(ModelIndex(model).roots.values()) == [model]
