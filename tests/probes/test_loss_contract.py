"""What the loss expects, held against what it gets: each mistake beside the way it should be done."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nndoctor.probes.loss_contract import (
    Activation,
    LossContractProbe,
    contract_signals,
    loss_region,
    unreachable_classes,
    unreachable_distance,
)
from nndoctor.probes.nodes import saved

N = 8
X = torch.linspace(-1, 1, N * 4).reshape(N, 4)
LABELS = torch.arange(N) % 3
ONE_HOT = F.one_hot(LABELS, 3).float()
SOFT = torch.softmax(torch.linspace(-1, 1, N * 3).reshape(N, 3), 1)
REAL = torch.linspace(-1, 1, N)[:, None]


@pytest.fixture
def net() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def signal(name: str, loss: torch.Tensor, loader_target: torch.Tensor | None = None) -> float | None:
    value = contract_signals(loss, loader_target).get(name)
    return None if value is None else float(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda z: F.cross_entropy(z[:, :1], torch.ones(N, 1)), 1.0),
        (lambda z: F.cross_entropy(z[:, :1], torch.zeros(N, dtype=torch.long)), 1.0),
        (lambda z: F.cross_entropy(z, LABELS), 0.0),
        (lambda z: F.cross_entropy(z, SOFT), 0.0),
    ],
)
def test_a_cross_entropy_of_one_class_is_told(net: nn.Linear, loss: Callable[..., torch.Tensor], expected: float) -> None:
    assert signal("loss.single_class", loss(net(X))) == expected


def test_logits_handed_to_nll_are_as_far_from_normalised_as_their_log_sum_exp(net: nn.Linear) -> None:
    logits = net(X)
    expected = torch.logsumexp(logits.detach(), 1).abs().median()
    assert signal("loss.unnormalised", F.nll_loss(logits, LABELS)) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    "log_probabilities",
    [
        lambda z: z.log_softmax(1),
        lambda z: torch.log(z.softmax(1)),
        lambda z: torch.log(z.softmax(1) + 1e-8),
        lambda z: z - torch.logsumexp(z, 1, keepdim=True),
        lambda z: 2 * z.log_softmax(1) - (2 * z.log_softmax(1)).logsumexp(1, keepdim=True),
    ],
)
def test_log_probabilities_are_normalised_however_they_were_made(
    net: nn.Linear, log_probabilities: Callable[..., torch.Tensor]
) -> None:
    assert signal("loss.unnormalised", F.nll_loss(log_probabilities(net(X)), LABELS)) == pytest.approx(0, abs=1e-5)


def test_rows_of_several_labels_do_not_sum_to_one(net: nn.Linear) -> None:
    several = torch.tensor([[1.0, 1.0, 0.0]]).expand(N, 3)
    assert signal("loss.soft_targets_off", F.cross_entropy(net(X), several)) == 1


@pytest.mark.parametrize("targets", [SOFT, ONE_HOT, ONE_HOT * torch.tensor([0.5, 2.0, 1.0]), SOFT.half().float()])
def test_probabilities_and_weighted_classes_are_left_in_peace(net: nn.Linear, targets: torch.Tensor) -> None:
    assert signal("loss.soft_targets_off", F.cross_entropy(net(X), targets)) == 0


def test_label_smoothing_is_no_soft_target(net: nn.Linear) -> None:
    assert signal("loss.soft_targets_off", F.cross_entropy(net(X), LABELS, label_smoothing=0.1)) in (None, 0)


@pytest.mark.parametrize(("scale", "expected"), [(1.0, 0.0), (255.0, 0.5)])
def test_binary_targets_outside_zero_to_one_are_counted(net: nn.Linear, scale: float, expected: float) -> None:
    targets = scale * (torch.arange(N) % 2).float()
    assert signal("loss.binary_outside", F.binary_cross_entropy_with_logits(net(X)[:, 0], targets)) == expected


@pytest.mark.parametrize(("targets", "expected"), [(ONE_HOT, 1.0), (torch.ones(N, 3), 0.0), (SOFT, 0.0)])
def test_binary_targets_that_exclude_each_other_are_told(net: nn.Linear, targets: torch.Tensor, expected: float) -> None:
    assert signal("loss.one_hot_binary", F.binary_cross_entropy_with_logits(net(X), targets)) == expected


def test_a_distance_to_class_labels_is_told(net: nn.Linear) -> None:
    outputs = net(X)
    column = LABELS[:, None].float()
    assert signal("loss.label_for_every_output", F.mse_loss(outputs, column.expand(N, 3))) == 1
    assert signal("loss.one_hot_distance", F.mse_loss(outputs, ONE_HOT)) == 1
    assert signal("loss.label_distance", F.mse_loss(outputs[:, :1], column), LABELS) == 1
    assert signal("loss.label_distance", ((outputs[:, 0] - LABELS) ** 2).mean(), LABELS) == 1


def test_real_numbers_are_no_labels(net: nn.Linear) -> None:
    outputs = net(X)
    assert signal("loss.label_for_every_output", F.mse_loss(outputs, REAL.expand(N, 3))) == 0
    assert signal("loss.one_hot_distance", F.mse_loss(outputs, SOFT)) == 0
    assert signal("loss.label_distance", F.mse_loss(outputs[:, :1], REAL), REAL) == 0
    assert signal("loss.label_distance", F.mse_loss(outputs[:, 0], (LABELS > 0).float()), (LABELS > 0).long()) == 0


@pytest.mark.parametrize(("width", "expected"), [(1, 1.0), (3, 0.0)])
def test_a_softmax_over_one_output_is_told(net: nn.Linear, width: int, expected: float) -> None:
    probabilities = net(X)[:, :width].softmax(1)
    assert signal("output.softmax_of_one", F.binary_cross_entropy(probabilities[:, :1], (REAL > 0).float())) == expected


@pytest.mark.parametrize(
    ("activation", "targets", "missed"),
    [
        (torch.relu, REAL, REAL.clamp_max(0).square().mean() / REAL.var(correction=0)),
        (torch.sigmoid, 2 * REAL, ((2 * REAL) - (2 * REAL).clamp(0, 1)).square().mean() / (4 * REAL.var(correction=0))),
        (torch.tanh, REAL, torch.tensor(0.0)),
        (torch.sigmoid, REAL.abs(), torch.tensor(0.0)),
        (lambda z: z, 100 * REAL, torch.tensor(0.0)),
        (lambda z: 3 * torch.tanh(z), 2 * REAL, torch.tensor(0.0)),
    ],
)
def test_the_part_of_the_targets_that_an_activation_cannot_return(
    net: nn.Linear, activation: Callable[..., torch.Tensor], targets: torch.Tensor, missed: torch.Tensor
) -> None:
    outputs = activation(net(X)[:, :1])
    assert signal("output.unreachable", F.mse_loss(outputs, targets)) == pytest.approx(float(missed), abs=1e-6)
    assert signal("output.unreachable", (outputs - targets).abs().mean(), targets) == pytest.approx(float(missed), abs=1e-6)


def test_the_floor_of_bounded_logits_is_the_loss_of_the_best_ones(net: nn.Linear) -> None:
    best = F.cross_entropy(2 * ONE_HOT - 1, LABELS) / math.log(3)
    assert signal("output.unreachable", F.cross_entropy(net(X).tanh(), LABELS)) == pytest.approx(float(best))
    assert signal("output.unreachable", F.cross_entropy(net(X).relu(), LABELS)) == 0
    assert signal("output.unreachable", F.cross_entropy(30 * net(X).tanh(), LABELS)) == 0


def test_positive_logits_cannot_answer_no(net: nn.Linear) -> None:
    answers = (torch.arange(N) % 2).float()
    assert signal("output.unreachable", F.binary_cross_entropy_with_logits(net(X)[:, 0].relu(), answers)) == pytest.approx(0.5, abs=1e-3)
    assert signal("output.unreachable", F.binary_cross_entropy_with_logits(net(X)[:, 0], answers)) == 0


def test_unbounded_activations_reach_everything() -> None:
    assert unreachable_distance(Activation(), REAL) == 0
    assert unreachable_classes(Activation("relu", low=0.0), 10) == 0


def test_the_walk_ends_at_the_layers() -> None:
    deep = nn.Sequential(*[layer for _ in range(30) for layer in (nn.Linear(4, 4), nn.ReLU())], nn.Linear(4, 3))
    assert len(loss_region(F.cross_entropy(deep(X), LABELS))) == 2


def test_what_a_checkpoint_packed_is_left_alone(net: nn.Linear) -> None:
    calls = []

    def forward(inputs: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return F.mse_loss(net(inputs), SOFT)

    loss = torch.utils.checkpoint.checkpoint(forward, X.clone().requires_grad_(), use_reentrant=False)
    if not hasattr(loss.grad_fn._raw_saved_self, "unpack_hook"):
        pytest.skip("this torch does not tell whether a saved tensor is packed")
    assert saved(loss.grad_fn, "_saved_self") is None
    contract_signals(loss, None)
    assert calls == [1]


def test_the_probe_changes_no_gradient_and_forgets_the_targets(net: nn.Linear) -> None:
    expected = torch.autograd.grad(F.mse_loss(net(X)[:, 0], LABELS.float()), net.weight)[0]
    probe = LossContractProbe()
    probe.begin_step(1, True)
    probe.batch_loaded(None, (X, LABELS), True)
    loss = F.mse_loss(net(X)[:, 0], LABELS.float())
    probe.backward_begins(loss)
    loss.backward()
    assert torch.equal(net.weight.grad, expected)  # type: ignore[arg-type]
    measured = probe.collect()
    assert float(measured["loss.label_distance"]) == 1  # type: ignore[arg-type]
    assert set(measured) <= set(probe.signals)
    assert probe.collect() == {}
