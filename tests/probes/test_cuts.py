"""Cuts of the gradient are told from parts that are not used, not meant, or waiting for their turn."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import Measured
from nndoctor.probes.cuts import CutProbe

X = torch.linspace(-1, 1, 12).reshape(4, 3)


class Net(nn.Module):
    """An encoder, a head and a spare head; `join` stands between the first two."""

    def __init__(self, join: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.join = join
        self.encoder = nn.Linear(3, 3)
        self.head = nn.Linear(3, 1)
        self.spare = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.join(self.encoder, x)
        return self.head(features), self.spare(features)


def found(model: nn.Module, steps: int = 5, between: Callable[[], None] = lambda: None) -> Mapping[str, Measured]:
    probe = CutProbe()
    probe.attach(ModelIndex(model))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    measured: Mapping[str, Measured] = {}
    for step in range(steps):
        probe.begin_step(step + 1, True)
        probe.forward_begins(model, (X,), {})
        output = model(X)
        probe.forward_ended(model, output)
        loss = output[0].square().mean()
        probe.backward_begins(loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        probe.stepped(optimizer)
        between()
        measured = probe.collect()
    probe.detach()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    return measured


def test_a_detach_is_found_between_the_layers_it_lies_between() -> None:
    measured = found(Net(lambda encoder, x: encoder(x).detach()))
    assert measured["layer.cut_off"] == [1, 0, 1]
    assert measured["layer.cut_after"] == [1, 0, 0]
    assert measured["layer.cut_before"] == [0, 1, 1]


def test_a_layer_under_no_grad_is_the_place_of_the_cut() -> None:
    def join(encoder: nn.Module, x: Tensor) -> Tensor:
        with torch.no_grad():
            features: Tensor = encoder(x)
        return features

    assert found(Net(join))["layer.cut_after"] == [1, 0, 0]


def test_an_output_that_nobody_uses_shows_no_cut() -> None:
    measured = found(Net(lambda encoder, x: encoder(x)))
    assert measured["layer.cut_off"] == [0, 0, 1]
    assert measured["layer.cut_after"] == [0, 0, 0]


def test_three_steps_are_waited_for() -> None:
    assert not any(found(Net(lambda encoder, x: encoder(x).detach()), steps=2).get("layer.cut_off", [0]))  # type: ignore[arg-type]


def test_weights_that_somebody_else_writes_are_not_cut_off() -> None:
    model = Net(lambda encoder, x: encoder(x).detach())

    def average() -> None:
        with torch.no_grad():
            for param in (*model.encoder.parameters(), *model.spare.parameters()):
                param.mul_(0.99)

    assert not any(found(model, between=average).get("layer.cut_off", [0]))  # type: ignore[arg-type]


class WithTarget(nn.Module):
    """A network and a copy of it that gives the goals."""

    def __init__(self) -> None:
        super().__init__()
        self.online = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
        self.target = copy.deepcopy(self.online)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        with torch.no_grad():
            goal = self.target(x.flip(0))
        return (self.online(x) - goal,)


def test_a_target_network_is_not_cut_off() -> None:
    assert not any(found(WithTarget()).get("layer.cut_off", [0]))  # type: ignore[arg-type]


def test_losses_that_take_turns_reach_everything() -> None:
    probe, model = CutProbe(), nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 1)})
    probe.attach(ModelIndex(model))
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.1) for part in model.values()]
    for step in range(4):
        probe.begin_step(step + 1, True)
        for detached, optimizer in ((True, optimizers[1]), (False, optimizers[0])):
            features = model["a"](X)
            loss = model["b"](features.detach() if detached else features).sum()
            probe.backward_begins(loss)
            loss.backward()
            optimizer.step()
            probe.stepped(optimizer)
    assert not any(probe.collect()["layer.cut_off"])  # type: ignore[arg-type]


def alternate(cut: bool, steps: int = 5) -> Mapping[str, Measured]:
    """A generator and its critic, each with an optimizer; the generator's loss is of a cut picture or of a whole one."""
    generator, critic = nn.Linear(3, 3), nn.Linear(3, 1)
    probe = CutProbe()
    probe.attach(ModelIndex({"generator": generator, "critic": critic}))
    painter, judge = (torch.optim.SGD(model.parameters(), lr=0.1) for model in (generator, critic))

    def called(model: nn.Module, given: Tensor) -> Tensor:
        probe.forward_begins(model, (given,), {})
        output: Tensor = model(given)
        probe.forward_ended(model, output)
        return output

    measured: Mapping[str, Measured] = {}
    step = 0
    for _ in range(steps):
        drawn = called(generator, X)
        for optimizer, seen in ((judge, drawn.detach()), (painter, drawn.detach() if cut else drawn)):
            step += 1
            probe.begin_step(step, True)
            loss = called(critic, seen).square().mean()
            probe.backward_begins(loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            probe.stepped(optimizer)
            measured = probe.collect() or measured
    probe.detach()
    return measured


def test_a_detach_between_two_models_is_found_and_one_for_the_critic_alone_is_not() -> None:
    assert alternate(cut=True)["layer.cut_after"] == [1, 0]
    assert alternate(cut=True)["layer.cut_off"] == [1, 0]
    assert not any(alternate(cut=False)["layer.cut_off"])
