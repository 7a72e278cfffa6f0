"""Counts of classes: their shares, their order, and which are never predicted."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nndoctor.probes.balance import PATIENCE, BalanceProbe
from nndoctor.probes.base import sleeps


def step(probe: BalanceProbe, target: Tensor, scores: Tensor, number: int, sampled: bool = True, weight: Tensor | None = None) -> None:
    probe.begin_step(number, sampled)
    probe.forward_begins(None, (torch.randn(len(target), 4),), {})
    probe.backward_begins(functional.cross_entropy(scores.requires_grad_(), target, weight=weight))


def told(probe: BalanceProbe) -> dict[str, float]:
    return {name: float(value) for name, value in probe.collect().items()}  # type: ignore[arg-type]


def test_shares_entropy_and_ratio_are_those_of_the_batch() -> None:
    probe = BalanceProbe()
    target = torch.tensor([0] * 24 + [1] * 6 + [2] * 2)
    step(probe, target, torch.zeros(32, 3), 1)
    found = told(probe)
    assert found["labels.seen"] == 32
    assert found["labels.majority_fraction"] == pytest.approx(24 / 32)
    assert found["labels.balance_ratio"] == pytest.approx(12)
    p = [24 / 32, 6 / 32, 2 / 32]
    assert found["labels.entropy"] == pytest.approx(-sum(q * math.log(q) for q in p))
    assert found["labels.neighbours_equal"] == pytest.approx(29 / 31)
    assert found["labels.neighbours_expected"] == pytest.approx(sum(q * q for q in p))
    assert found["labels.weighted"] == 0


def test_a_rare_class_without_a_right_answer_is_ignored_until_one_is_right() -> None:
    probe = BalanceProbe()
    target = torch.tensor([0] * 30 + [1] * 2)
    always_zero = torch.tensor([[1.0, 0.0]]).repeat(32, 1)
    for number in range(1, 6):
        step(probe, target, always_zero, number)
    found = told(probe)
    assert found["labels.ignored_classes"] == 1
    assert found["labels.ignored_samples"] == 10
    assert found["predictions.majority_fraction"] == pytest.approx(1)
    right = always_zero.clone()
    right[-1] = torch.tensor([0.0, 1.0])
    step(probe, target, right, 6)
    assert told(probe)["labels.ignored_classes"] == 0


def test_lucky_guesses_of_the_first_steps_are_forgotten_at_the_first_row_of_misses() -> None:
    probe = BalanceProbe()
    target = torch.tensor([0] * 30 + [1] * 2)
    always_one, always_zero = (torch.tensor([row]).repeat(32, 1) for row in ([0.0, 1.0], [1.0, 0.0]))
    for number in range(1, 11):
        step(probe, target, always_one.clone(), number)
    assert told(probe)["labels.ignored_classes"] == 0
    for number in range(11, 15):
        step(probe, target, always_zero.clone(), number)
    found = told(probe)
    assert found["labels.ignored_classes"] == 1
    assert found["labels.ignored_samples"] == 8


def test_a_frequent_class_without_a_right_answer_is_not_called_rare() -> None:
    probe = BalanceProbe()
    step(probe, torch.tensor([0, 1] * 16), torch.tensor([[1.0, 0.0]]).repeat(32, 1), 1)
    assert told(probe)["labels.ignored_classes"] == 0


def test_batches_of_one_class_are_counted() -> None:
    probe = BalanceProbe()
    for number in range(4):
        step(probe, torch.full((16,), number // 2), torch.zeros(16, 3), number + 1)
    found = told(probe)
    assert found["labels.one_class_batches"] == pytest.approx(1)
    assert found["labels.classes_seen"] == 2


def test_class_weights_of_the_loss_are_noticed() -> None:
    probe = BalanceProbe()
    step(probe, torch.tensor([0, 1] * 8), torch.zeros(16, 2), 1, weight=torch.tensor([1.0, 9.0]))
    assert told(probe)["labels.weighted"] == 1


def test_targets_to_be_ignored_do_not_count() -> None:
    probe = BalanceProbe()
    step(probe, torch.tensor([0, -100] * 8), torch.zeros(16, 2), 1)
    assert told(probe)["labels.seen"] == 8


def test_steps_that_are_never_sampled_are_looked_at_now_and_then_and_told_at_once() -> None:
    probe = BalanceProbe()
    news = []
    for number in range(1, 2 * PATIENCE + 1):
        step(probe, torch.tensor([0, 1] * 8), torch.zeros(16, 2), number, sampled=False)
        if probe.news:
            news.append(number)
            told(probe)
    assert news == [PATIENCE, 2 * PATIENCE]


def test_a_sampled_step_spares_the_look_in_between() -> None:
    probe = BalanceProbe()
    for number in range(1, PATIENCE + 2):
        step(probe, torch.tensor([0, 1] * 8), torch.zeros(16, 2), number, sampled=number == 2)
        if number == 2:
            told(probe)
    assert not probe.news


def test_it_hears_of_the_loss_alone_while_nothing_is_sampled() -> None:
    probe = BalanceProbe()
    assert not sleeps(probe, "backward_begins")
    assert sleeps(probe, "loss_read")
    assert sleeps(probe, "forward_begins")


def test_tokens_are_not_samples() -> None:
    probe = BalanceProbe()
    probe.begin_step(1, True)
    probe.forward_begins(None, (torch.zeros(4, 8, dtype=torch.long),), {})
    probe.backward_begins(functional.cross_entropy(torch.zeros(32, 5, requires_grad=True), torch.zeros(32, dtype=torch.long)))
    assert told(probe) == {}
