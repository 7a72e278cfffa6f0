"""Networks that give goals: found by their build and their use, and whether they follow the trained one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import nn

from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import Measured
from nndoctor.probes.targets import TargetProbe


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))


def found(
    target_of: Callable[[nn.Module], nn.Module],
    *,
    same_input: bool = False,
    after_step: Callable[[nn.Module, nn.Module], None] = lambda target, model: None,
) -> Mapping[str, Measured]:
    """What the probe says after four steps towards goals that the target gives."""
    torch.manual_seed(0)
    model = net()
    target = target_of(model)
    probe, optimizer = TargetProbe(), torch.optim.SGD(model.parameters(), lr=0.1)
    probe.attach(ModelIndex(model))
    for step in range(4):
        probe.begin_step(step + 1, True)
        now, later = torch.randn(5, 3), torch.randn(5, 3)
        with torch.no_grad():
            goal = target(now if same_input else later)
        loss = (model(now) - goal - 1).square().mean()
        probe.backward_begins(loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after_step(target, model)
    measured = probe.collect()
    probe.detach()
    assert not nn.modules.module._global_forward_pre_hooks
    return measured


def changed(measured: Mapping[str, Measured]) -> float:
    value = measured["target_network.changed"]
    assert isinstance(value, torch.Tensor)
    return float(value)


def test_a_copy_that_never_follows_is_unchanged() -> None:
    measured = found(copy.deepcopy)
    assert (measured["target_network.used"], measured["target_network.shared"], measured["target_network.steps"]) == (1, 0, 2)
    assert changed(measured) == 0


def test_a_copy_that_is_averaged_or_loaded_has_changed() -> None:
    def average(target: nn.Module, model: nn.Module) -> None:
        with torch.no_grad():
            for old, new in zip(target.parameters(), model.parameters(), strict=True):
                old.lerp_(new, 0.1)

    def load(target: nn.Module, model: nn.Module) -> None:
        target.load_state_dict(model.state_dict())

    assert changed(found(copy.deepcopy, after_step=average)) == 1
    assert changed(found(copy.deepcopy, after_step=load)) == 1


def test_loading_its_own_weights_is_no_change() -> None:
    assert changed(found(copy.deepcopy, after_step=lambda target, model: target.load_state_dict(target.state_dict()))) == 0


def test_a_shallow_copy_shares_the_weights() -> None:
    measured = found(copy.copy)
    assert measured["target_network.shared"] == 1
    assert "target_network.changed" not in measured


def test_a_reference_that_sees_the_very_input_is_left_out() -> None:
    assert found(copy.deepcopy, same_input=True) == {}


def test_the_trained_network_itself_and_one_built_otherwise_are_left_out() -> None:
    assert found(lambda model: model) == {}
    assert found(lambda model: nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))) == {}
