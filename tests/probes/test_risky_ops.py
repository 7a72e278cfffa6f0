"""Operations of the loss at their edge, against what autograd makes of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nndoctor.discovery import ModelIndex
from nndoctor.probes.loss_contract import loss_region
from nndoctor.probes.risky_ops import RiskyOperationsProbe, edges

X = torch.ones(5, 3)


@pytest.fixture
def net() -> nn.Linear:
    """Answers nought to everything."""
    layer = nn.Linear(3, 2)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def at_edge(loss: Tensor) -> dict[str, float]:
    return {edge.name: float(edge.count) for edge in edges(loss_region(loss)) if float(edge.count) > 0}


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda z: z.square().sum(1).sqrt().mean(), {"sqrt": 5.0}),
        (lambda z: (z.square().sum(1) ** 0.5).mean(), {"power": 5.0}),
        (lambda z: torch.log(z.abs()).mean(), {"log": 10.0}),
        (lambda z: (z.sum(1) / z.square().sum(1)).mean(), {"division": 5.0}),
        (lambda z: (1 + z).acos().mean(), {"acos": 10.0}),
        (lambda z: z.square().sum(1).rsqrt().mean(), {"rsqrt": 5.0}),
        (lambda z: (1000 + z).exp().mean(), {"exp": 10.0}),
        (lambda z: z[z > 1].mean(), {"mean": 1.0}),
        (lambda z: F.cross_entropy(z, torch.full((5,), -100)), {"mean": 1.0}),
    ],
)
def test_what_gives_infinite_gradients_is_named(net: nn.Linear, loss: Callable[[Tensor], Tensor], expected: dict[str, float]) -> None:
    value = loss(net(X))
    assert at_edge(value) == expected
    value.backward()
    broken = not math.isfinite(float(value.detach())) or not bool(net.bias.grad.isfinite().all())  # type: ignore[union-attr]
    assert broken


@pytest.mark.parametrize(
    "loss",
    [
        lambda z: (z.square().sum(1) + 1e-8).sqrt().mean(),
        lambda z: z.norm(dim=1).mean(),
        lambda z: z.std(0).mean(),
        lambda z: torch.cdist(z, z).mean(),
        lambda z: torch.log(z.softmax(1)).mean(),
        lambda z: (z**2).mean() / 64,
        lambda z: F.cross_entropy(z, torch.tensor([0, 1, -100, 0, 1])),
        lambda z: z.pow(3).mean(),
    ],
)
def test_what_stays_finite_is_not(net: nn.Linear, loss: Callable[[Tensor], Tensor]) -> None:
    value = loss(net(X))
    assert at_edge(value) == {}
    value.backward()
    assert net.bias.grad is not None
    assert bool(net.bias.grad.isfinite().all())


def test_the_slope_is_the_largest_derivative(net: nn.Linear) -> None:
    nn.init.constant_(net.bias, 1e-4)
    found = edges(loss_region((net(X)[:, 0]).sqrt().mean()))
    assert float(next(edge for edge in found if edge.name == "sqrt").slope) == pytest.approx(0.5 / math.sqrt(1e-4))


def test_a_nan_from_elsewhere_is_no_edge(net: nn.Linear) -> None:
    nn.init.constant_(net.bias, float("nan"))
    assert at_edge(net(X).square().sum(1).sqrt().mean()) == {}


def test_operations_inside_the_model_are_not_the_loss(net: nn.Linear) -> None:
    model = nn.Sequential(net, nn.Linear(2, 2))
    hidden = net(X).abs().log()
    assert at_edge(model[1](hidden).square().mean()) == {}


def test_the_probe_names_the_operation_as_a_layer(net: nn.Linear) -> None:
    index, probe = ModelIndex(net), RiskyOperationsProbe()
    probe.attach(index)
    assert probe.collect() == {}
    probe.begin_step(1, True)
    probe.backward_begins(net(X).square().sum(1).sqrt().mean())
    measured = probe.collect()
    place = index.layer_names.index("loss/sqrt")
    assert float(measured["op.edge"][place]) == 5  # type: ignore[index]
    assert math.isnan(float(measured["op.edge"][0]))  # type: ignore[index]
    assert set(measured) == set(probe.signals)
