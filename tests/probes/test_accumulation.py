"""Which losses are added up undivided, and which only look like it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nndoctor.discovery import ModelIndex
from nndoctor.interpose import PROCESS
from nndoctor.probes.accumulation import AccumulationProbe, reduction
from nndoctor.probes.base import Measured

N = 8
X = torch.linspace(-1, 1, N * 3).reshape(N, 3)
LABELS = torch.arange(N) % 2


@pytest.fixture
def net() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


@pytest.mark.parametrize(
    "loss",
    [
        lambda z: F.cross_entropy(z, LABELS),
        lambda z: F.mse_loss(z, torch.zeros(N, 2)),
        lambda z: F.l1_loss(z, torch.zeros(N, 2)),
        lambda z: z.square().mean(),
        lambda z: F.cross_entropy(z, LABELS) + 0.1 * z.square().mean(),
    ],
)
def test_an_average_that_nothing_divides_is_undivided(net: nn.Linear, loss: Callable[[Tensor], Tensor]) -> None:
    assert reduction(loss(net(X))).undivided


@pytest.mark.parametrize(
    "loss",
    [
        lambda z: F.cross_entropy(z, LABELS) / 4,
        lambda z: 0.25 * F.mse_loss(z, torch.zeros(N, 2)),
        lambda z: (F.cross_entropy(z, LABELS) + z.square().mean()) / 4,
        lambda z: F.cross_entropy(z, LABELS, reduction="sum"),
        lambda z: F.cross_entropy(z, LABELS, reduction="sum") / 100,
        lambda z: z.square().sum(),
    ],
)
def test_scaled_averages_and_sums_are_not(net: nn.Linear, loss: Callable[[Tensor], Tensor]) -> None:
    assert not reduction(loss(net(X))).undivided


class Loop:
    """One optimizer step, told to the probe as the doctor tells it."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.probe = model, AccumulationProbe()
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        self.probe.attach(ModelIndex(model))
        self.probe.begin_step(1, True)

    def backward(self, inputs: Tensor, loss: Callable[[Tensor], Tensor], loader: object = None) -> None:
        if loader is not None:
            self.probe.batch_loaded(loader, inputs, True)
        self.probe.forward_begins(self.model, (inputs,), {})
        value = loss(self.model(inputs))
        self.probe.backward_begins(value)
        value.backward()
        self.probe.backward_ended()

    def step(self) -> Mapping[str, Measured]:
        self.probe.gradients_ready(self.optimizer)
        return self.probe.collect()


def mean(z: Tensor) -> Tensor:
    return z.square().mean()


def test_batches_of_one_loader_summed_without_division_are_found(net: nn.Linear) -> None:
    loop, loader = Loop(net), object()
    for _ in range(4):
        loop.backward(X.clone(), mean, loader)
    assert loop.step() == {"accumulate.window": 4, "accumulate.undivided": 1}


def test_gradients_that_were_cleared_in_between_as_after_a_skipped_step_do_not_add_up(net: nn.Linear) -> None:
    loop, loader = Loop(net), object()
    for _ in range(3):
        loop.optimizer.zero_grad()
        loop.backward(X.clone(), mean, loader)
    assert loop.step() == {"accumulate.window": 1, "accumulate.undivided": 0}


def test_pieces_of_one_tensor_are_batches_of_their_own(net: nn.Linear) -> None:
    loop = Loop(net)
    for piece in X.chunk(4):
        loop.backward(piece, mean)
    assert loop.step() == {"accumulate.window": 4, "accumulate.undivided": 1}


def test_divided_losses_are_a_window_without_fault(net: nn.Linear) -> None:
    loop, loader = Loop(net), object()
    for _ in range(4):
        loop.backward(X.clone(), lambda z: mean(z) / 4, loader)
    assert loop.step() == {"accumulate.window": 4, "accumulate.undivided": 0}


def test_two_losses_of_one_batch_are_several_tasks(net: nn.Linear) -> None:
    loop, loader = Loop(net), object()
    loop.backward(X, mean, loader)
    loop.backward(X, mean)
    assert loop.step()["accumulate.undivided"] == 0


def test_batches_of_two_loaders_are_several_tasks(net: nn.Linear) -> None:
    loop, loaders = Loop(net), (object(), object())
    for loader in loaders:
        loop.backward(X.clone(), mean, loader)
    assert loop.step()["accumulate.undivided"] == 0


def test_gradients_divided_by_hand_before_the_step_are_in_order(net: nn.Linear) -> None:
    loop, loader = Loop(net), object()
    for _ in range(4):
        loop.backward(X.clone(), mean, loader)
    for param in net.parameters():
        assert param.grad is not None
        param.grad /= 4
    assert loop.step()["accumulate.undivided"] == 0


def test_clipping_is_not_taken_for_a_division(net: nn.Linear) -> None:
    loop, loader = Loop(net), object()
    for _ in range(4):
        loop.backward(X.clone(), mean, loader)
    PROCESS.add(loop.probe)
    try:
        nn.utils.clip_grad_norm_(net.parameters(), 1e-3)
    finally:
        PROCESS.remove(loop.probe)
    assert loop.step()["accumulate.undivided"] == 1


def test_unevenness_is_the_ratio_of_the_targets_that_count(net: nn.Linear) -> None:
    loop, loader = Loop(net), object()
    few = torch.where(torch.arange(N) < 2, LABELS, -100)
    for labels in (LABELS, few):
        loop.backward(X.clone(), lambda z, labels=labels: F.cross_entropy(z, labels) / 2, loader)
    found = loop.step()["accumulate.unevenness"]
    assert isinstance(found, torch.Tensor)
    assert found.tolist() == [4]
