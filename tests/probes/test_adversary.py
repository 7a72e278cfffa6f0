"""Which model judges and which draws is read off the loop, and what they are measured by holds however it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nndoctor.discovery import ModelIndex
from nndoctor.probes.adversary import AdversaryProbe, sample_of, variety

BATCH = 8


class Loop:
    """A generator and a discriminator that step in turn under the probe."""

    def __init__(self, spread: float = 1.0) -> None:
        torch.manual_seed(0)
        self.generator, self.discriminator = nn.Linear(3, 2), nn.Linear(2, 1)
        with torch.no_grad():
            self.generator.weight.mul_(spread)
        self.painter = torch.optim.SGD(self.generator.parameters(), lr=0.0)
        self.judge = torch.optim.SGD(self.discriminator.parameters(), lr=0.0)
        for optimizer, rate in ((self.painter, 1e-12), (self.judge, 4e-12)):
            optimizer.param_groups[0]["lr"] = rate
        self.probe = AdversaryProbe()
        self.probe.attach(ModelIndex({"g": self.generator, "d": self.discriminator}))
        self.real = torch.randn(BATCH, 2)

    def update(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        self.probe.backward_begins(loss)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        self.probe.stepped(optimizer)

    def run(self, round_of: Callable[[Loop], None], rounds: int = 4) -> Mapping[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(rounds):
            round_of(self)
            if self.probe.news:
                found.update(self.probe.collect())
        self.probe.detach()
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in (self.generator, self.discriminator))
        return found


def judged(loop: Loop, fake: Tensor) -> Tensor:
    real, drawn = loop.discriminator(loop.real), loop.discriminator(fake)
    return F.binary_cross_entropy_with_logits(real, torch.ones(BATCH, 1)) + F.binary_cross_entropy_with_logits(
        drawn, torch.zeros(BATCH, 1)
    )


def usual(loop: Loop) -> None:
    fake = loop.generator(torch.randn(BATCH, 3))
    loop.update(loop.judge, judged(loop, fake.detach()))
    loop.update(loop.painter, F.binary_cross_entropy_with_logits(loop.discriminator(fake), torch.ones(BATCH, 1)))


def generator_first(loop: Loop) -> None:
    fake = loop.generator(torch.randn(BATCH, 3))
    loop.update(loop.painter, F.binary_cross_entropy_with_logits(loop.discriminator(fake), torch.ones(BATCH, 1)))
    loop.update(loop.judge, judged(loop, fake.detach()))


def drawn_without_gradients(loop: Loop) -> None:
    with torch.no_grad():
        fake = loop.generator(torch.randn(BATCH, 3))
    loop.update(loop.judge, judged(loop, fake))
    fake = loop.generator(torch.randn(BATCH, 3))
    loop.update(loop.painter, F.softplus(-loop.discriminator(fake)).mean())


@pytest.mark.parametrize("round_of", [usual, generator_first, drawn_without_gradients])
def test_the_pair_is_found_in_every_order(round_of: Callable[[Loop], None]) -> None:
    found = Loop().run(round_of)
    assert found["adversary.discriminator_rate"] == 4e-12
    assert found["adversary.generator_rate"] == 1e-12
    assert 1.2 < float(found["adversary.discriminator_loss"]) < 1.9
    assert 0.5 < float(found["adversary.generator_loss"]) < 1.0
    assert 0.2 < float(found["adversary.variety"]) < 3


def test_a_generator_that_draws_the_same_for_all_noise_has_no_variety() -> None:
    assert float(Loop(spread=1e-4).run(usual)["adversary.variety"]) < 1e-3


def test_losses_of_a_critic_have_no_zero_and_are_not_told() -> None:
    def critic(loop: Loop) -> None:
        fake = loop.generator(torch.randn(BATCH, 3))
        loop.update(loop.judge, loop.discriminator(fake.detach()).mean() - loop.discriminator(loop.real).mean())
        loop.update(loop.painter, -loop.discriminator(fake).mean())

    found = Loop().run(critic)
    assert "adversary.variety" in found
    assert "adversary.discriminator_loss" not in found


def test_two_models_that_do_not_see_each_other_are_no_pair() -> None:
    def apart(loop: Loop) -> None:
        loop.update(loop.painter, loop.generator(torch.randn(BATCH, 3)).square().mean())
        loop.update(loop.judge, loop.discriminator(loop.real).square().mean())

    assert Loop().run(apart) == {}


def test_one_model_is_not_listened_to() -> None:
    probe = AdversaryProbe()
    model = nn.Linear(2, 1)
    probe.attach(ModelIndex(model))
    probe.stepped(torch.optim.SGD(model.parameters(), lr=0.1))
    assert not model._forward_hooks
    assert probe.collect() == {}


def test_looks_become_rare() -> None:
    loop, looks = Loop(), 0
    for _ in range(300):
        usual(loop)
        looks += loop.probe.news
        if loop.probe.news:
            loop.probe.collect()
    assert 8 <= looks <= 14


def test_variety_is_the_root_mean_square_distance() -> None:
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])
    assert float(variety(points)) == pytest.approx((50 / 3) ** 0.5)
    assert sample_of(torch.randn(1000, 3, 64, 64)).numel() <= 1 << 16
