"""What the graph of the loss tells, however the loss was written."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nndoctor.discovery import ModelIndex
from nndoctor.probes.graph import GraphProbe, target_statistics, walk

N = 6
X = torch.linspace(-1, 1, N * 4).reshape(N, 4)
LABELS = torch.arange(N) % 3
REAL = torch.linspace(0, 1, N)


@pytest.fixture
def net() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


@pytest.mark.parametrize(
    "loss",
    [
        lambda z: F.cross_entropy(z.softmax(-1), LABELS),
        lambda z: nn.CrossEntropyLoss()(torch.softmax(z, 1).squeeze(), LABELS),
        lambda z: F.binary_cross_entropy_with_logits(torch.sigmoid(z[:, 0]), REAL),
        lambda z: F.cross_entropy(torch.sigmoid(z), LABELS),
    ],
)
def test_probabilities_fed_to_a_loss_that_makes_its_own_are_found(net: nn.Linear, loss: Callable[..., torch.Tensor]) -> None:
    assert walk(loss(net(X))).softmax_twice


@pytest.mark.parametrize(
    "loss",
    [
        lambda z: F.cross_entropy(z, LABELS),
        lambda z: F.nll_loss(z.log_softmax(-1), LABELS),
        lambda z: F.nll_loss(z.softmax(-1).log(), LABELS),
        lambda z: F.cross_entropy(z.log_softmax(-1), LABELS),
        lambda z: F.binary_cross_entropy(torch.sigmoid(z[:, 0]), REAL),
        lambda z: F.cross_entropy((z.softmax(-1) @ torch.ones(3, 5)), LABELS),
        lambda z: F.mse_loss(z.softmax(-1), torch.ones(N, 3)),
    ],
)
def test_losses_that_take_what_they_expect_are_left_in_peace(net: nn.Linear, loss: Callable[..., torch.Tensor]) -> None:
    assert not walk(loss(net(X))).softmax_twice


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize(
    "loss",
    [
        lambda p: F.mse_loss(p, REAL),
        lambda p: ((p - REAL) ** 2).mean(),
        lambda p: ((REAL - p) ** 2).mean(),
        lambda p: F.smooth_l1_loss(p, REAL),
        lambda p: (p - REAL).abs().mean(),
        lambda p: F.mse_loss(p.squeeze(1), REAL[:, None]),
    ],
)
def test_a_column_compared_with_a_row_is_found(net: nn.Linear, loss: Callable[..., torch.Tensor]) -> None:
    assert walk(loss(net(X)[:, :1])).broadcast == N


@pytest.mark.parametrize(
    "loss",
    [
        lambda p: F.mse_loss(p, REAL[:, None]),
        lambda p: ((p.squeeze(1) - REAL) ** 2).mean(),
        lambda p: ((p[:, None, 0] - p[None, :, 0]) ** 2).mean(),
        lambda p: torch.cdist(p, p).mean(),
        lambda p: (p - p.mean(0)).square().mean(),
        lambda p: F.mse_loss(p @ p.T, torch.ones(N, N)),
    ],
)
def test_pairs_made_on_purpose_and_equal_shapes_are_left_in_peace(net: nn.Linear, loss: Callable[..., torch.Tensor]) -> None:
    assert walk(loss(net(X)[:, :1])).broadcast == 1


def test_the_walk_reaches_what_trains_and_not_what_was_detached() -> None:
    first, second, unused = nn.Linear(4, 4), nn.Linear(4, 3), nn.Linear(4, 3)
    graph = walk(F.cross_entropy(second(first(X).detach()), LABELS))
    assert graph.reached == {id(p) for p in second.parameters()}
    assert not graph.reached & {id(p) for p in (*first.parameters(), *unused.parameters())}
    assert graph.complete


def test_kind_classes_and_targets_are_read_off_the_loss(net: nn.Linear) -> None:
    graph = walk(F.cross_entropy(net(X), LABELS))
    assert (graph.kind, graph.classes, graph.regression) == ("cross entropy", 3, False)
    assert graph.target is not None
    assert torch.equal(graph.target, LABELS)
    distance = walk(F.mse_loss(net(X)[:, 0], REAL))
    assert (distance.kind, distance.regression) == ("mean squared error", True)
    assert walk(net(X).sum()).kind == "custom"


def test_walking_changes_no_gradient(net: nn.Linear) -> None:
    loss = F.cross_entropy(net(X), LABELS)
    expected = torch.autograd.grad(loss, net.weight, retain_graph=True)[0]
    walk(loss)
    loss.backward()
    assert torch.equal(net.weight.grad, expected)


def test_the_probe_reports_reach_chance_and_classes(net: nn.Linear) -> None:
    model = nn.ModuleDict({"used": net, "unused": nn.Linear(4, 3)})
    probe = GraphProbe()
    probe.attach(ModelIndex(model))
    probe.begin_step(1, True)
    probe.backward_begins(F.cross_entropy(model["used"](X), LABELS))
    measured = probe.collect()
    assert measured["param.reached"] == [1.0, 1.0, 0.0, 0.0]
    assert measured["loss.reached_fraction"] == 0.5
    assert measured["loss.chance"] == pytest.approx(math.log(3))
    assert float(measured["target.classes"]) == 3  # type: ignore[arg-type]
    probe.begin_step(2, False)
    probe.backward_begins(F.cross_entropy(model["used"](X), LABELS))
    assert probe.collect() == {}


def test_target_statistics_match_torch() -> None:
    real = torch.tensor([1.0, 2.0, float("nan"), 4.0])
    found = {name: float(value) for name, value in target_statistics(real).items()}  # type: ignore[arg-type]
    clean = torch.tensor([1.0, 2.0, 4.0])
    assert found["target.mean"] == pytest.approx(float(clean.mean()))
    assert found["target.std"] == pytest.approx(float(clean.std(correction=0)))
    assert (found["target.min"], found["target.max"], found["target.nonfinite"]) == (1.0, 4.0, 1.0)
    classes = {name: float(value) for name, value in target_statistics(torch.tensor([2, 2, 0, 5])).items()}  # type: ignore[arg-type]
    assert (classes["target.classes"], classes["target.majority_fraction"]) == (3.0, 0.5)
