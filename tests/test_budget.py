"""The sampling plan, without a clock."""

from __future__ import annotations

from itertools import pairwise

import pytest

from nndoctor.budget import (
    DENSE_LEAST,
    DENSE_SECONDS,
    DENSE_STEPS,
    GENEROUS_SAMPLES,
    SLOWEST,
    SLOWEST_BY_DEFAULT,
    Budget,
    Cadence,
    StepTime,
)


def learnt(cost: float, step_time: float = 0.01, share: float = 0.004) -> Cadence:
    cadence = Cadence(share, StepTime())
    for _ in range(20):
        cadence.step_time.observe(step_time)
    for _ in range(5):
        cadence.observe_cost(cost)
    return cadence


@pytest.mark.parametrize(("cost", "allowance"), [(1e-6, 1), (1e-4, 1), (6e-4, 1), (3e-3, 3), (2e-2, 3)])
def test_a_cadence_keeps_its_cost_within_its_share(cost: float, allowance: float) -> None:
    cadence = learnt(cost)
    assert cadence.every is not None
    assert cost / cadence.every <= allowance * 0.004 * 0.01
    assert cadence.every & (cadence.every - 1) == 0


def test_a_single_stall_does_not_thin_a_tier_out_but_a_lasting_rise_does() -> None:
    cadence = learnt(2e-4)
    for _ in range(10):
        cadence.observe_cost(2e-4)
    before = cadence.every
    assert before is not None
    cadence.observe_cost(0.2)  # a garbage collection
    assert cadence.every is not None
    assert cadence.every <= 2 * before
    for _ in range(12):
        cadence.observe_cost(4e-3)
    assert cadence.every >= 8 * before
    assert cadence.cost == pytest.approx(4e-3, rel=0.1)


def test_a_tier_that_cost_nothing_is_not_taken_to_stay_free() -> None:
    cadence = learnt(0.0)
    for _ in range(10):
        cadence.observe_cost(0.0)
    for _ in range(20):
        cadence.observe_cost(4e-3)
    assert cadence.cost == pytest.approx(4e-3, rel=0.1)


def test_a_cadence_rises_at_once_and_falls_only_by_four() -> None:
    cadence = learnt(2e-4)
    before = cadence.every
    for _ in range(3):
        cadence.observe_cost(2e-3)
    assert before is not None
    assert cadence.every is not None
    assert cadence.every > before
    risen = cadence.every
    for _ in range(50):
        cadence.observe_cost(2.2e-4)
    assert cadence.every in (risen, before)


def test_short_steps_are_still_looked_at_once_in_thirty_two() -> None:
    assert learnt(3e-3).every == 32
    assert learnt(9e-3).every == 128


def test_the_first_cost_is_warm_up_and_does_not_count() -> None:
    cadence = Cadence(0.004, StepTime(0.01, 1))
    cadence.observe_cost(10.0)
    assert cadence.every is None


def test_one_stalled_step_does_not_buy_more_sampling() -> None:
    typical = learnt(1e-3).step_time
    typical.observe(100.0)
    assert typical.seconds is not None
    assert typical.seconds < 0.013


def test_a_tier_that_no_cadence_can_afford_is_told() -> None:
    budget = Budget(0.01)
    for step in range(1, 30):
        budget.step_took(step, 1e-3, 0.0, sampled=False)
        budget.tier_cost("activations", 100.0)
    assert budget.switched_off() == ("activations",)
    assert budget.every("activations") == SLOWEST


def test_the_first_steps_are_dense_and_later_ones_follow_the_cadence() -> None:
    budget = Budget(0.01)
    assert all(budget.sampled("parameters", step) for step in range(1, DENSE_STEPS + 1))
    later = [step for step in range(DENSE_STEPS + 1, 400) if budget.sampled("parameters", step)]
    assert {b - a for a, b in pairwise(later)} == {SLOWEST_BY_DEFAULT}


def test_looking_ahead_gives_the_same_plan_as_asking_every_tier_on_every_step() -> None:
    budget, asked = Budget(0.01), Budget(0.01)
    for step in range(1, 600):
        for plan in (budget, asked):
            plan.step_took(step, 0.01, 1e-5, sampled=False)
        sampled = budget.tiers_at(step)
        assert sampled == {tier for tier in asked.tiers if asked.sampled(tier, step)}, step
        for number, tier in enumerate(sorted(sampled)):
            for plan in (budget, asked):
                plan.tier_cost(tier, 1e-4 * (number + 1) * (4 if step > 300 else 1))


def test_a_fixed_cadence_does_not_depend_on_what_things_cost() -> None:
    budget = Budget(0.01, cadence=10)
    for step in range(1, 200):
        budget.step_took(step, 0.01, 0.009, sampled=True)
        budget.tier_cost("parameters", 1.0)
    assert [s for s in range(100, 131) if budget.sampled("parameters", s)] == [100, 110, 120, 130]


def test_spending_far_beyond_the_budget_stops_the_sampling() -> None:
    budget = Budget(0.01)
    for step in range(1, 200):
        budget.step_took(step, 0.01, 0.004 if step > DENSE_STEPS else 0.0, sampled=False)
    assert not any(budget.sampled("parameters", step) for step in range(224, 289, 32))


@pytest.mark.parametrize(("budget", "cadence"), [(0, None), (-1, None), (1.5, None), (0.01, 0)])
def test_nonsense_is_refused(budget: float, cadence: int | None) -> None:
    with pytest.raises(ValueError, match=r"budget|cadence"):
        Budget(budget, cadence)


def test_no_tier_looks_more_often_than_a_look_may_cost() -> None:
    budget = Budget(0.01)
    for step in range(1, 4):
        budget.step_took(step, 0.010, 0.0, False)
    for _ in range(3):
        budget.tier_cost("data", 1e-6)  # worth every eighth step
        budget.frame_cost(0.003)  # 0.3 steps: one in 32 is within one percent
    assert budget.every("data") == 32
    for _ in range(GENEROUS_SAMPLES):
        budget.frame_cost(0.006)
    assert budget.every("data") == 64


def test_a_dear_look_is_still_taken_every_32_steps_at_first() -> None:
    budget = Budget(0.01)
    for step in range(1, 4):
        budget.step_took(step, 0.001, 0.0, False)
    for _ in range(GENEROUS_SAMPLES):
        budget.tier_cost("data", 1e-7)
        budget.frame_cost(0.006)
    assert budget.every("data") == 32
    budget.frame_cost(0.006)
    assert budget.every("data") == 1024


def test_whole_steps_are_measured_by_all_tiers_and_the_next_look_knows_of_them() -> None:
    budget = Budget(cadence=8, dense=0, whole_every=12)
    sampled = [step for step in range(1, 30) if budget.tiers_at(step)]
    assert sampled == [8, 12, 16, 24]
    assert budget.tiers_at(12) == frozenset(budget.tiers)
    budget.tiers_at(17)
    assert budget.next_look == 24


def test_without_whole_steps_there_are_none() -> None:
    budget = Budget(cadence=8, dense=0)
    assert not any(budget.is_whole(step) for step in range(1, 30))


def planned(step_time: float, looks: int = GENEROUS_SAMPLES + 1, **costs: float) -> Budget:
    """A budget that has learnt what each tier and a look cost, in seconds."""
    budget = Budget()
    for step in range(1, 41):
        budget.step_took(step, step_time, 0.0, False)
    for _ in range(looks):
        for tier, seconds in costs.items():
            if tier != "look":
                budget.tier_cost(tier, seconds)
        budget.frame_cost(costs["look"])
    return budget


def test_no_tier_looks_more_often_than_usual_where_all_together_would_cost_more_than_the_budget() -> None:
    costs = {"parameters": 9e-3, "activations": 3.6e-3, "times": 2.4e-3, "graph": 1.6e-3, "data": 0.8e-3}
    cheap, dear = planned(0.15, **costs, look=1e-3), planned(0.15, **costs, look=9e-3)
    assert cheap.every("parameters") == 16
    assert cheap.every("activations") == 8
    assert {dear.every(tier) for tier in costs} == {SLOWEST_BY_DEFAULT}
    together = (sum(costs.values()) + 9e-3) / SLOWEST_BY_DEFAULT / 0.15
    assert together < dear.budget
    assert planned(0.15, looks=20, **costs, look=9e-3).every("activations") == 8, "a short run is looked at as often as each tier can afford"
    assert planned(0.002, **costs, look=9e-3).every("parameters") > SLOWEST_BY_DEFAULT, "what is seldom already stays as seldom"


@pytest.mark.parametrize(
    ("own", "measured"),
    [(0.004, DENSE_STEPS), (DENSE_SECONDS / DENSE_STEPS, DENSE_STEPS), (0.5, 21), (30.0, DENSE_LEAST)],
)
def test_looks_that_take_long_are_fewer_at_the_start_but_never_fewer_than_ten(own: float, measured: int) -> None:
    budget = Budget()
    looked = []
    for step in range(1, 2 * DENSE_STEPS):
        if budget.sampled("parameters", step) and step % SLOWEST_BY_DEFAULT:
            looked.append(step)
        budget.step_took(step, own + 0.1, own, sampled=True)
    assert looked == [step for step in range(1, measured + 1) if step % SLOWEST_BY_DEFAULT]


def test_a_fixed_cadence_measures_all_of_the_first_steps_whatever_they_take() -> None:
    budget = Budget(cadence=7)
    for step in range(1, DENSE_STEPS + 1):
        assert budget.sampled("parameters", step)
        budget.step_took(step, 31.0, 30.0, sampled=True)
