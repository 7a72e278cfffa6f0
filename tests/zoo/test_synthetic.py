"""Made-up data are what their formulas say, the same for the same seed, and leave torch's generator alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from nndoctor.zoo import synthetic
from nndoctor.zoo.synthetic import (
    ALPHABET,
    PAD,
    CartPoles,
    GridWorld,
    communities,
    customers,
    electricity,
    house_prices,
    numbers_to_sort,
    sums_in_words,
)

MAKERS: list[Callable[..., Any]] = [customers, house_prices, sums_in_words, numbers_to_sort, communities, electricity]


def tensors(made: Any) -> list[torch.Tensor]:
    if isinstance(made, torch.Tensor):
        return [made]
    return list(made) if isinstance(made, tuple) else list(vars(made).values())


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_the_seed_alone_decides_and_the_default_generator_is_left_alone(make: Callable[..., Any]) -> None:
    before = torch.get_rng_state()
    first, again, other = (tensors(make(seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_the_share_of_customers_that_leave_is_the_one_asked_for() -> None:
    data = customers(3000, share=0.1)
    assert data.train_targets.float().mean().item() == pytest.approx(0.1, abs=0.02)
    one_hot = data.train_inputs[:, synthetic.FLOATS :]
    assert set(one_hot.unique().tolist()) == {0.0, 1.0}
    assert (one_hot.sum(1) == len(synthetic.CATEGORIES)).all()


def test_prices_are_standardised() -> None:
    prices = torch.cat([house_prices().train_targets, house_prices().val_targets])
    assert prices.mean().item() == pytest.approx(0, abs=1e-4)
    assert prices.std().item() == pytest.approx(1, abs=1e-4)


def test_the_sums_are_right() -> None:
    text = "".join(ALPHABET[token] for token in sums_in_words(200).flatten().tolist())
    sentences = text.split(". ")[:-1]
    assert len(sentences) > 300
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    for sentence in sentences:
        left, plus, right, equals, total = sentence.split(" ")
        assert (plus, equals) == ("+", "=")
        assert words.index(left) + words.index(right) == words.index(total)


def test_the_ordered_sequence_holds_the_same_symbols_and_the_same_padding() -> None:
    given, ordered = numbers_to_sort(300)
    assert torch.equal(given == PAD, ordered == PAD)
    for row, sorted_row in zip(given.tolist(), ordered.tolist(), strict=True):
        symbols = [symbol for symbol in row if symbol != PAD]
        assert sorted(symbols) == sorted_row[: len(symbols)]


def test_propagation_is_the_normalised_adjacency_and_classes_flock_together() -> None:
    graph = communities(200)
    edges = graph.propagation > 0
    degree = edges.float().sum(1)
    assert torch.allclose(graph.propagation, edges.float() / (degree[:, None] * degree[None, :]).sqrt())
    same = graph.labels[:, None] == graph.labels[None, :]
    assert edges[same].float().mean() > 3 * edges[~same].float().mean()


def test_a_pole_that_is_never_balanced_falls_and_one_that_is_stands_longer() -> None:
    def standing_after(moves: int, choose: Callable[[torch.Tensor], torch.Tensor]) -> float:
        poles = CartPoles(50, seed=0)
        states, alive = poles.reset(), torch.ones(50, dtype=torch.bool)
        for _move in range(moves):
            states, standing = poles.push(choose(states))
            alive = alive & standing
        return alive.float().mean().item()

    assert standing_after(60, lambda states: torch.ones(len(states))) == 0.0
    assert standing_after(60, lambda states: (states[:, 2] + states[:, 3] > 0).float()) == 1.0


def test_a_push_follows_the_equations_for_a_pole_at_rest() -> None:
    poles = CartPoles(1)
    poles.states = torch.zeros(1, 4)
    states, standing = poles.push(torch.ones(1))
    pull = 10.0 / 1.1
    turn = -pull / (0.5 * (4 / 3 - 0.1 / 1.1))
    assert states[0].tolist() == pytest.approx([0.0, 0.02 * (pull - 0.05 * turn / 1.1), 0.0, 0.02 * turn], abs=1e-6)
    assert bool(standing)
    assert math.isclose(CartPoles.SECONDS, 0.02)


def test_the_room_has_walls_a_goal_and_pits() -> None:
    world = GridWorld(5)
    world.cell = 0
    assert world.move(0) == (0, -0.02, False)
    assert world.move(3) == (1, -0.02, False)
    assert world.move(1) == (6, -1.0, True)
    world.cell = 23
    assert world.move(3) == (24, 1.0, True)
    assert all(world.reset() not in {24, *world.pits} for _start in range(50))
