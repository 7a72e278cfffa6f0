"""Which tensors are the model's, the optimizer's and the loss's, told by identity alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import Measured
from nndoctor.probes.ownership import OwnershipProbe, hidden_modules, leaves

X = torch.linspace(-1, 1, 12).reshape(4, 3)


class Loop:
    """Trains for a step or two and tells the probe of it."""

    def __init__(self, watched: Any) -> None:
        self.index = ModelIndex(watched)
        self.probe = OwnershipProbe()
        self.probe.attach(self.index)

    def run(self, loss: Callable[[], Tensor], *optimizers: torch.optim.Optimizer, steps: int = 2) -> Mapping[str, Measured]:
        found: Mapping[str, Measured] = {}
        for _ in range(steps):
            value = loss()
            self.probe.backward_begins(value)
            value.backward()
            for optimizer in optimizers:
                optimizer.step()
                self.probe.stepped(optimizer)
            found = self.probe.collect()
        return found


def sgd(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.1)


def test_leaves_are_the_tensors_that_backward_fills() -> None:
    used, detached, unused = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
    loss = used(detached(X).detach()).sum()
    found = leaves(loss)
    assert found is not None
    loss.backward()
    every = [*used.parameters(), *detached.parameters(), *unused.parameters()]
    assert set(found) == {id(p) for p in every if p.grad is not None}


def test_an_optimizer_that_holds_what_the_loss_reaches_holds_nothing_stale() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    found = Loop(model).run(lambda: model(X).sum(), sgd(model))
    assert (found["optimizer.stale_tensors"], found["optimizer.tensors"]) == (0, 4)
    assert found["param.replaced"] == [0, 0, 0, 0]


def test_every_tensor_of_a_model_that_was_built_again_is_stale() -> None:
    optimizer = sgd(nn.Linear(3, 1))
    model = nn.Linear(3, 1)
    assert Loop(model).run(lambda: model(X).sum(), optimizer)["optimizer.stale_tensors"] == 2


def test_training_another_model_than_the_watched_one_makes_all_that_is_held_stale() -> None:
    watched, trained = nn.Linear(3, 1), nn.Linear(3, 1)
    assert Loop(watched).run(lambda: trained(X).sum(), sgd(watched))["optimizer.stale_tensors"] == 2


def test_a_parametrization_after_the_optimizer_leaves_the_old_weight_stale() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    optimizer = sgd(model)
    weight_norm(model[0])
    assert Loop(model).run(lambda: model(X).sum(), optimizer)["optimizer.stale_tensors"] == 1


def test_a_layer_replaced_after_attaching_is_named() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    loop, optimizer = Loop(model), sgd(model)
    loop.run(lambda: model(X).sum(), optimizer)
    model[1] = nn.Linear(4, 2)
    found = loop.run(lambda: model(X).sum(), optimizer)
    assert found["optimizer.stale_tensors"] == 2
    assert found["param.replaced"] == [0, 0, 1, 1]


def test_a_replaced_layer_that_was_added_to_the_optimizer_is_no_fault() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    loop, optimizer = Loop(model), sgd(model)
    loop.run(lambda: model(X).sum(), optimizer)
    model[1] = nn.Linear(4, 2)
    optimizer.add_param_group({"params": model[1].parameters()})
    assert loop.run(lambda: model(X).sum(), optimizer)["optimizer.stale_tensors"] == 0


def test_two_networks_that_take_turns_hold_nothing_stale() -> None:
    generator, judge = nn.Linear(3, 3), nn.Linear(3, 1)
    loop = Loop({"generator": generator, "judge": judge})
    draw, assess = sgd(generator), sgd(judge)
    for _ in range(3):
        loop.run(lambda: judge(generator(X).detach()).sum(), assess, steps=1)
        found = loop.run(lambda: judge(generator(X)).sum(), draw, steps=1)
    assert found["optimizer.stale_tensors"] == 0


def test_a_watched_judge_in_the_loss_of_an_unwatched_generator_is_not_stale() -> None:
    generator, judge = nn.Linear(3, 3), nn.Linear(3, 1)
    found = Loop(judge).run(lambda: judge(generator(X)).sum(), sgd(judge))
    assert found["optimizer.stale_tensors"] == 0


def test_parameters_of_a_loss_module_are_not_stale() -> None:
    model, margin = nn.Linear(3, 1), nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([*model.parameters(), margin], lr=0.1)
    assert Loop(model).run(lambda: (model(X) * margin).sum(), optimizer)["optimizer.stale_tensors"] == 0


class Hiding(nn.Module):
    """Keeps a layer in a list, a parameter in a dict in a list, and a registered layer in a list as well."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 1)
        self.layers = [nn.Linear(3, 3), nn.ReLU(), self.head]
        self.tables = [{"scale": nn.Parameter(torch.ones(3))}]
        self.constant = torch.ones(3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.layers[0](x) * self.tables[0]["scale"] * self.constant)
        return out


def test_hidden_modules_and_parameters_are_found_with_the_path_that_leads_to_them() -> None:
    assert [(name, kind) for name, kind, _ in hidden_modules(Hiding())] == [
        ("layers[0]", "Linear"),
        ("tables[0]['scale']", "Parameter"),
    ]


def test_what_the_loss_reaches_of_them_becomes_a_layer_of_that_name() -> None:
    model = Hiding()
    loop = Loop({"net": model})
    found = loop.run(lambda: model(X).sum(), sgd(model))
    assert loop.index.layer_names == ["net.head", "net.layers[0]", "net.tables[0]['scale']"]
    assert found["layer.unregistered"] == [0, 1, 1]
    assert found["layer.unregistered_held"] == [0, 0, 0]
    assert found["optimizer.stale_tensors"] == 0


def test_a_hidden_module_that_the_optimizer_holds_all_the_same_is_told_apart() -> None:
    model = Hiding()
    optimizer = torch.optim.SGD([*model.parameters(), *model.layers[0].parameters()], lr=0.1)
    found = Loop(model).run(lambda: model(X).sum(), optimizer)
    assert found["layer.unregistered_held"] == [0, 1, 0]


def test_a_teacher_in_a_list_that_the_loss_does_not_reach_is_left_in_peace() -> None:
    model = Hiding()
    found = Loop(model).run(lambda: model.head(X).sum(), sgd(model))
    assert "layer.unregistered" not in found
