"""The contract of the gradient scaler, told by events alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

import nndoctor
from nndoctor.probes.base import Measured
from nndoctor.probes.scaling import BREACHES, RECENT, ScalingProbe

STEPS = 4


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> ScalingProbe:
    """The probe of the next doctor; `seen` holds the largest value of each signal that it ever told."""
    made = ScalingProbe()
    seen: dict[str, float] = {}
    collect = made.collect

    def collected() -> Mapping[str, Measured]:
        measured = collect()
        for name, value in measured.items():
            seen[name] = max(seen.get(name, 0.0), float(value))  # type: ignore[arg-type]
        return measured

    monkeypatch.setattr(made, "collect", collected)
    made.seen = seen  # type: ignore[attr-defined]
    monkeypatch.setattr("nndoctor.doctor.further_probes", lambda: [made])
    return made


class Loop:
    """A model, an optimizer and a scaler, watched by the doctor."""

    def __init__(self, scale: float = 1024.0, **options: Any) -> None:
        self.model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=scale, **options)

    def loss(self) -> torch.Tensor:
        return self.model(torch.ones(5, 3)).square().mean()

    def backward(self) -> None:
        self.scaler.scale(self.loss()).backward()

    def finish(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()


@pytest.fixture
def watched(probe: ScalingProbe) -> Iterator[Callable[..., Loop]]:
    doctors = []

    def make(**options: Any) -> Loop:
        loop = Loop(**options)
        doctors.append(nndoctor.wrap(loop.model, loop.optimizer, ui="off", strict=True, cadence=1))
        return loop

    yield make
    for doctor in doctors:
        doctor.close()


def breaches(probe: ScalingProbe) -> list[str]:
    seen: dict[str, float] = probe.seen  # type: ignore[attr-defined]
    return [name for name in BREACHES if seen.get(name)]


def value(probe: ScalingProbe, name: str) -> float | None:
    seen: dict[str, float] = probe.seen  # type: ignore[attr-defined]
    return seen.get(name)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_correct_loop_with_accumulation_and_clipping_breaks_nothing(
    probe: ScalingProbe, watched: Callable[..., Loop], set_to_none: bool
) -> None:
    loop = watched()
    for _ in range(STEPS):
        loop.optimizer.zero_grad(set_to_none=set_to_none)
        loop.backward()
        loop.backward()
        loop.scaler.unscale_(loop.optimizer)
        clip_grad_norm_(loop.model.parameters(), 0.1)
        loop.scaler.step(loop.optimizer)
        loop.scaler.update()
    assert breaches(probe) == []
    assert value(probe, "amp.scale") == 1024.0
    assert value(probe, "amp.scaler") == 1.0


def test_without_a_scaler_nothing_is_measured(probe: ScalingProbe, watched: Callable[..., Loop]) -> None:
    loop = watched()
    for _ in range(STEPS):
        loop.loss().backward()
        clip_grad_norm_(loop.model.parameters(), 0.1)
        loop.optimizer.step()
        loop.optimizer.zero_grad()
    assert probe.seen == {}  # type: ignore[attr-defined]


def test_clipping_before_unscaling_is_told_from_the_second_step(probe: ScalingProbe, watched: Callable[..., Loop]) -> None:
    loop = watched()
    for _ in range(2):
        loop.backward()
        clip_grad_norm_(loop.model.parameters(), 0.1)
        loop.finish()
    assert breaches(probe) == ["amp.clipped_scaled"]


def test_gradients_divided_by_hand_before_clipping_are_no_breach(probe: ScalingProbe, watched: Callable[..., Loop]) -> None:
    loop = watched()
    for _ in range(STEPS):
        loop.backward()
        for param in loop.model.parameters():
            assert param.grad is not None
            param.grad.div_(loop.scaler.get_scale())
        clip_grad_norm_(loop.model.parameters(), 0.1)
        loop.optimizer.step()
        loop.optimizer.zero_grad()
    assert breaches(probe) == []


def test_a_step_past_the_scaler_is_told_even_after_clipping(probe: ScalingProbe, watched: Callable[..., Loop]) -> None:
    loop = watched()
    for _ in range(3):
        loop.backward()
        clip_grad_norm_(loop.model.parameters(), 0.1)
        loop.optimizer.step()
        loop.optimizer.zero_grad()
    assert "amp.stepped_scaled" in breaches(probe)


def test_unscaling_by_the_scaler_and_stepping_past_it_is_no_breach(probe: ScalingProbe, watched: Callable[..., Loop]) -> None:
    loop = watched()
    for _ in range(STEPS):
        loop.backward()
        loop.scaler.unscale_(loop.optimizer)
        loop.optimizer.step()
        loop.scaler.update()
        loop.optimizer.zero_grad()
    assert breaches(probe) == []


def test_a_scaled_loss_that_is_thrown_away_is_told(probe: ScalingProbe, watched: Callable[..., Loop]) -> None:
    loop = watched()
    for _ in range(3):
        loss = loop.loss()
        loop.scaler.scale(loss)
        loss.backward()
        loop.finish()
    assert breaches(probe) == ["amp.never_scaled"]


def test_a_scaled_loss_may_be_divided_before_backward(probe: ScalingProbe, watched: Callable[..., Loop]) -> None:
    loop = watched()
    for _ in range(STEPS):
        (loop.scaler.scale(loop.loss()) / 2).backward()
        loop.finish()
    assert breaches(probe) == []


def test_update_between_unscale_and_step_is_told(probe: ScalingProbe, watched: Callable[..., Loop]) -> None:
    loop = watched()
    loop.backward()
    loop.scaler.unscale_(loop.optimizer)
    loop.scaler.update()
    loop.scaler.step(loop.optimizer)
    assert breaches(probe) == ["amp.updated_early"]


def test_a_backward_after_unscale_is_told(probe: ScalingProbe, watched: Callable[..., Loop]) -> None:
    loop = watched()
    for _ in range(3):
        loop.backward()
        loop.scaler.unscale_(loop.optimizer)
        loop.backward()
        loop.finish()
    assert breaches(probe) == ["amp.unscaled_early"]


@pytest.mark.parametrize(("call", "breach"), [("step", "amp.refused_step"), ("unscale_", "amp.refused_unscale")])
def test_a_refused_call_is_told_when_the_doctor_closes(probe: ScalingProbe, call: str, breach: str) -> None:
    loop = Loop()
    with nndoctor.wrap(loop.model, loop.optimizer, ui="off", strict=True):
        loop.backward()
        getattr(loop.scaler, call)(loop.optimizer)
        with pytest.raises(RuntimeError):
            getattr(loop.scaler, call)(loop.optimizer)
    assert breaches(probe) == [breach]


def test_two_networks_that_share_a_scaler_break_nothing(probe: ScalingProbe) -> None:
    """A GAN: the generator's loss leaves scaled gradients in the discriminator, which clears them before its turn."""
    generator, discriminator = nn.Linear(3, 3), nn.Linear(3, 1)
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.01) for net in (generator, discriminator)]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with nndoctor.wrap([generator, discriminator], optimizers, ui="off", strict=True):
        for _ in range(STEPS):
            for net, optimizer in ((discriminator, optimizers[1]), (generator, optimizers[0])):
                optimizer.zero_grad()
                scaler.scale(discriminator(generator(torch.ones(4, 3))).mean()).backward()
                scaler.unscale_(optimizer)
                clip_grad_norm_(net.parameters(), 0.1)
                scaler.step(optimizer)
            scaler.update()
    assert breaches(probe) == []


def test_a_network_that_is_not_scaled_may_step_beside_one_that_is(probe: ScalingProbe) -> None:
    scaled, plain = nn.Linear(3, 3), nn.Linear(3, 1)
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.01) for net in (scaled, plain)]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with nndoctor.wrap([scaled, plain], optimizers, ui="off", strict=True):
        for _ in range(STEPS):
            optimizers[0].zero_grad()
            scaler.scale(plain(scaled(torch.ones(4, 3))).mean()).backward()
            scaler.step(optimizers[0])
            scaler.update()
            plain.zero_grad(set_to_none=False)
            plain(torch.ones(4, 3)).mean().backward()
            optimizers[1].step()
    assert breaches(probe) == []


def test_a_scaler_for_every_step_is_counted(probe: ScalingProbe, watched: Callable[..., Loop]) -> None:
    loop = watched()
    for _ in range(STEPS):
        loop.scaler = torch.amp.GradScaler("cpu")
        loop.backward()
        loop.finish()
    assert value(probe, "amp.fresh_scalers") == STEPS


def test_one_scaler_is_new_once(probe: ScalingProbe, watched: Callable[..., Loop]) -> None:
    loop = watched()
    for _ in range(STEPS):
        loop.backward()
        loop.finish()
    assert value(probe, "amp.fresh_scalers") == 1


def test_a_disabled_scaler_under_float16_is_told(probe: ScalingProbe, watched: Callable[..., Loop]) -> None:
    loop = watched(enabled=False)
    for _ in range(STEPS):
        with torch.autocast("cpu", torch.float16):
            loss = loop.loss()
        loop.scaler.scale(loss).backward()
        loop.finish()
    assert (value(probe, "amp.scaler"), value(probe, "amp.half")) == (0.0, 1.0)
    assert breaches(probe) == []


def test_skipped_steps_in_a_row_are_told_though_no_step_is_ever_taken(
    probe: ScalingProbe, watched: Callable[..., Loop]
) -> None:
    loop = watched()
    for _ in range(30):
        loop.scaler.scale(loop.loss() * float("nan")).backward()
        loop.finish()
    assert value(probe, "amp.skips_in_row") == 30


def test_the_share_of_skipped_steps_is_that_of_the_last_hundred(probe: ScalingProbe, watched: Callable[..., Loop]) -> None:
    loop = watched()
    for number in range(RECENT + 20):
        loop.scaler.scale(loop.loss() * (float("nan") if number % 2 else 1.0)).backward()
        loop.finish()
    assert value(probe, "amp.skip_fraction") == 0.5
