"""The two ratio schedules have the fixed points that are documented, and they are different ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim import SGD

from nndoctor.lab.schedules import (
    TARGET,
    ExponentialRatioLR,
    FixedRatioSGD,
    ListingRatioLR,
    RatioLR,
    RecursiveRatioLR,
    exponential_target,
)

STEEPNESS = 0.4


class Slope:
    """Weights whose gradient is always STEEPNESS times as long as they are: the ratio is STEEPNESS * lr."""

    def __init__(self, lr: float) -> None:
        generator = torch.Generator().manual_seed(0)
        self.weights = [nn.Parameter(torch.randn(8, 5, generator=generator, dtype=torch.float64)) for _ in range(3)]
        self.directions = [torch.randn(8, 5, generator=generator, dtype=torch.float64) for _ in self.weights]
        self.optimizer = SGD(self.weights, lr=lr)

    def step(self) -> float:
        """One update; returns its ratio."""
        before = [weight.detach().clone() for weight in self.weights]
        for weight, direction in zip(self.weights, self.directions, strict=True):
            weight.grad = STEEPNESS * weight.detach().norm() * direction / direction.norm()
        self.optimizer.step()
        ratios = [float((w.detach() - b).norm() / b.norm()) for w, b in zip(self.weights, before, strict=True)]
        return sum(ratios) / len(ratios)

    @property
    def lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize(("base", "steps"), [(2e-3, 5), (2.5e-3, 5), (5e-3, 6), (1e-4, 8), (1e-1, 8)])
def test_the_recursive_schedule_reaches_the_target_within_five_steps_and_from_far_away_within_eight(base: float, steps: int) -> None:
    slope = Slope(base)
    scheduler = RecursiveRatioLR(slope.optimizer, step_factor=100)
    for _ in range(steps):
        slope.step()
        scheduler.step()
    assert slope.step() == pytest.approx(TARGET, rel=1e-3)
    assert slope.lr == pytest.approx(TARGET / STEEPNESS, rel=1e-3)


def test_the_listing_keeps_rate_times_ratio_at_base_times_target() -> None:
    slope = Slope(0.1)
    scheduler = ListingRatioLR(slope.optimizer)
    for _ in range(50):
        slope.step()
        scheduler.step()
        assert scheduler.mean_ratio is not None
        assert slope.lr * scheduler.mean_ratio == pytest.approx(0.1 * TARGET, rel=1e-12)


@pytest.mark.parametrize("base", [0.01, 0.1])
def test_the_listing_settles_at_the_geometric_mean(base: float) -> None:
    slope = Slope(base)
    scheduler = ListingRatioLR(slope.optimizer)
    ratio = 0.0
    for _ in range(300):
        ratio = slope.step()
        scheduler.step()
    assert slope.lr == pytest.approx(math.sqrt(base * TARGET / STEEPNESS), rel=1e-6)
    assert ratio == pytest.approx(math.sqrt(base * TARGET * STEEPNESS), rel=1e-6)


def test_rates_and_ratios_of_two_listings_differ_by_factors_whose_product_is_that_of_the_bases() -> None:
    low, high = Slope(0.01), Slope(0.1)
    schedulers = [ListingRatioLR(slope.optimizer) for slope in (low, high)]
    for _ in range(20):
        for slope, scheduler in zip((low, high), schedulers, strict=True):
            slope.step()
            scheduler.step()
        rates = high.lr / low.lr
        ratios = schedulers[1].mean_ratio / schedulers[0].mean_ratio  # type: ignore[operator]
        assert rates * ratios == pytest.approx(10, rel=1e-9)


def test_no_rate_grows_beyond_its_cap() -> None:
    slope = Slope(1e-9)
    scheduler = ListingRatioLR(slope.optimizer, max_factor=500)
    for _ in range(5):
        slope.step()
        scheduler.step()
    assert slope.lr <= 500 * 1e-9
    slope = Slope(1e-8)
    capped = RecursiveRatioLR(slope.optimizer, max_factor=500, step_factor=100)
    for _ in range(10):
        slope.step()
        capped.step()
    assert slope.lr == pytest.approx(500 * 1e-8)


def test_one_step_changes_the_rate_by_no_more_than_the_step_factor() -> None:
    slope = Slope(1.0)
    scheduler = RecursiveRatioLR(slope.optimizer, step_factor=2)
    slope.step()
    scheduler.step()
    assert slope.lr == pytest.approx(0.5)


def test_half_of_the_exponential_schedule_decays_per_epoch() -> None:
    slope = Slope(0.1)
    scheduler = ExponentialRatioLR(slope.optimizer, steps_per_epoch=4, decay=0.5)
    for _ in range(9):
        slope.step()
        scheduler.step()
    assert scheduler.mean_ratio is not None
    assert slope.lr == pytest.approx(0.1 * (0.5 * TARGET / scheduler.mean_ratio + 0.5 * 0.5**2), rel=1e-12)


def test_a_falling_target_is_followed() -> None:
    slope = Slope(2.5e-3)
    scheduler = RecursiveRatioLR(slope.optimizer, exponential_target(1e-3, 0.5, steps_per_epoch=20), newest=1)
    ratio = 0.0
    for _ in range(50):
        ratio = slope.step()
        scheduler.step()
    assert ratio == pytest.approx(0.25e-3, rel=1e-9)


def test_zero_weights_biases_and_unused_parameters_do_not_count() -> None:
    weight, empty, bias, unused = (nn.Parameter(torch.ones(shape)) for shape in ((2, 2), (2, 2), (2,), (2, 2)))
    with torch.no_grad():
        empty.zero_()
    optimizer = SGD([weight, empty, bias, unused], lr=0.1)
    scheduler = ListingRatioLR(optimizer, newest=1)
    for parameter in (weight, empty, bias):
        parameter.grad = torch.full_like(parameter, 0.01)
    optimizer.step()
    scheduler.step()
    assert scheduler.mean_ratio == pytest.approx(1e-3, rel=1e-4)


@pytest.mark.parametrize("build", [RecursiveRatioLR, ListingRatioLR])
def test_a_scheduler_step_without_an_optimizer_step_changes_nothing(build: Callable[..., RatioLR]) -> None:
    slope = Slope(0.1)
    scheduler = build(slope.optimizer)
    slope.step()
    scheduler.step()
    rate = slope.lr
    scheduler.step()
    assert slope.lr == rate


@pytest.mark.parametrize("build", [RecursiveRatioLR, ListingRatioLR])
def test_a_saved_schedule_goes_on_as_if_nothing_had_been(build: Callable[..., RatioLR]) -> None:
    whole, parts = Slope(0.1), Slope(0.1)
    one, first = build(whole.optimizer), build(parts.optimizer)
    for _ in range(5):
        whole.step(), one.step(), parts.step(), first.step()
    first.detach()
    second = build(parts.optimizer)
    second.load_state_dict(first.state_dict())
    for group, rate in zip(parts.optimizer.param_groups, first.get_last_lr(), strict=True):
        group["lr"] = rate
    for _ in range(5):
        whole.step(), one.step(), parts.step(), second.step()
    assert parts.lr == whole.lr


def test_groups_keep_the_proportion_of_their_rates() -> None:
    slope = Slope(0.1)
    optimizer = SGD([{"params": slope.weights[:1], "lr": 0.2}, {"params": slope.weights[1:], "lr": 0.1}], lr=0.1)
    slope.optimizer = optimizer
    scheduler = RecursiveRatioLR(optimizer)
    for _ in range(4):
        slope.step()
        scheduler.step()
    first, second = scheduler.get_last_lr()
    assert first == pytest.approx(2 * second)


def test_every_update_of_the_fixed_ratio_has_that_ratio() -> None:
    generator = torch.Generator().manual_seed(1)
    weights = [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in ((4, 3), (5,))]
    optimizer = FixedRatioSGD(weights, ratio=0.02)
    for _ in range(10):
        before = [weight.detach().clone() for weight in weights]
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        optimizer.step()
        for weight, old in zip(weights, before, strict=True):
            assert float((weight.detach() - old).norm() / old.norm()) == pytest.approx(0.02, abs=1e-6)


def test_the_fixed_ratio_leaves_zero_weights_and_zero_gradients_where_they_are() -> None:
    empty, flat, frozen = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    empty.grad, flat.grad = torch.ones(3), torch.zeros(3)
    FixedRatioSGD([empty, flat, frozen]).step()
    assert torch.equal(empty.detach(), torch.zeros(3))
    assert torch.equal(flat.detach(), torch.ones(3))


@pytest.mark.parametrize("wrong", [{"newest": 0.0}, {"target": 0.0}, {"max_factor": 0.5}])
def test_arguments_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ListingRatioLR(Slope(0.1).optimizer, **wrong)


def test_detaching_leaves_no_hook() -> None:
    slope = Slope(0.1)
    ListingRatioLR(slope.optimizer).detach()
    assert not slope.optimizer._optimizer_step_pre_hooks
    assert not slope.optimizer._optimizer_step_post_hooks
