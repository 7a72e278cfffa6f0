"""The contract of the loop, told by events alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from nndoctor.interpose import PROCESS
from nndoctor.probes.loop import BACKWARDS_WITHOUT_STEP, ROUNDS_WITHOUT_STEP, Contract, LoopContracts


class Follower:
    """Feeds LoopContracts as the doctor does and keeps the contract of each step."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self.contracts = LoopContracts()
        self.found: list[tuple[int, Contract]] = []
        self.handles = []
        for number, optimizer in enumerate(optimizers):
            self.contracts.register(optimizer)
            self.handles.append(
                optimizer.register_step_pre_hook(
                    lambda o, *_, n=number: self.found.append((n, self.contracts.before_step(o)))
                )
            )
            self.handles.append(optimizer.register_step_post_hook(lambda o, *_: self.contracts.after_step(o)))

    def backward_begins(self, loss: object) -> None:
        self.contracts.backward_begins()

    def backward_ended(self) -> None:
        self.contracts.backward_ended()

    def gradients_zeroed(self, owner: object) -> None:
        self.contracts.gradients_zeroed(owner)

    def observer_failed(self, event: str, error: Exception) -> None:
        raise error

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: None


@pytest.fixture
def follow() -> Iterator[Callable[..., Follower]]:
    made: list[Follower] = []

    def make(*optimizers: torch.optim.Optimizer) -> Follower:
        made.append(Follower(*optimizers))
        PROCESS.add(made[-1])  # type: ignore[arg-type]
        return made[-1]

    yield make
    for follower in made:
        PROCESS.remove(follower)  # type: ignore[arg-type]
        for handle in follower.handles:
            handle.remove()


def net() -> tuple[nn.Sequential, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1))
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def loss_of(model: nn.Module) -> torch.Tensor:
    return model(torch.ones(3, 4)).square().mean()


def broken(follower: Follower, promise: str) -> list[bool]:
    return [getattr(contract, promise) for _, contract in follower.found]


@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_correct_loop_breaks_no_promise(follow: Callable[..., Follower], set_to_none: bool) -> None:
    model, optimizer = net()
    follower = follow(optimizer)
    for _ in range(4):
        optimizer.zero_grad(set_to_none=set_to_none)
        loss_of(model).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
    assert [c for _, c in follower.found] == [Contract(backwards=1)] * 4


def test_gradients_that_were_never_cleared_are_stale_from_the_second_step(follow: Callable[..., Follower]) -> None:
    model, optimizer = net()
    follower = follow(optimizer)
    for _ in range(3):
        loss_of(model).backward()
        optimizer.step()
    assert broken(follower, "stale_gradients") == [False, True, True]


@pytest.mark.parametrize("set_to_none", [True, False])
def test_clearing_between_backward_and_step_is_seen(follow: Callable[..., Follower], set_to_none: bool) -> None:
    model, optimizer = net()
    follower = follow(optimizer)
    for _ in range(2):
        loss_of(model).backward()
        model.zero_grad(set_to_none=set_to_none)
        optimizer.step()
    assert broken(follower, "gradients_cleared") == [True, True]


def test_clearing_after_the_step_is_as_good_as_before_backward(follow: Callable[..., Follower]) -> None:
    model, optimizer = net()
    follower = follow(optimizer)
    for _ in range(3):
        loss_of(model).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert [c for _, c in follower.found] == [Contract(backwards=1)] * 3


def test_gradients_set_to_none_by_hand_count_as_cleared(follow: Callable[..., Follower]) -> None:
    model, optimizer = net()
    follower = follow(optimizer)
    for _ in range(3):
        for p in model.parameters():
            p.grad = None
        loss_of(model).backward()
        optimizer.step()
    assert broken(follower, "stale_gradients") == [False] * 3


def test_accumulation_is_healthy_and_clearing_inside_its_window_is_not(follow: Callable[..., Follower]) -> None:
    model, optimizer = net()
    follower = follow(optimizer)
    for clear_each in (False, True):
        optimizer.zero_grad()
        for _ in range(4):
            if clear_each:
                optimizer.zero_grad()
            loss_of(model).backward()
        optimizer.step()
    assert broken(follower, "cleared_between_backwards") == [False, True]
    assert [c.backwards for _, c in follower.found] == [4, 4]


def test_a_gan_with_two_alternating_optimizers_breaks_no_promise(follow: Callable[..., Follower]) -> None:
    generator, generator_optimizer = nn.Linear(4, 4), None
    discriminator, discriminator_optimizer = net()
    generator_optimizer = torch.optim.SGD(generator.parameters(), lr=0.1)
    follower = follow(discriminator_optimizer, generator_optimizer)
    for _ in range(4):
        noise = torch.ones(3, 4)
        discriminator_optimizer.zero_grad()
        discriminator(torch.zeros(3, 4)).mean().backward()
        discriminator(generator(noise).detach()).mean().neg().backward()
        discriminator_optimizer.step()
        generator_optimizer.zero_grad()
        discriminator(generator(noise)).mean().backward()
        generator_optimizer.step()
    for promise in ("stale_gradients", "gradients_cleared", "cleared_between_backwards"):
        assert not any(broken(follower, promise)), promise


def test_zero_grad_of_another_network_clears_nothing_of_this_one(follow: Callable[..., Follower]) -> None:
    model, optimizer = net()
    other, other_optimizer = net()
    follower = follow(optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(model).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        other_optimizer.zero_grad()
        other.zero_grad()
        optimizer.step()
    assert not any(broken(follower, "gradients_cleared"))


def test_sharpness_aware_steps_may_clear_in_between(follow: Callable[..., Follower]) -> None:
    model, optimizer = net()
    follower = follow(optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(model).backward()
        with torch.no_grad():
            for p in model.parameters():
                assert p.grad is not None
                p.add_(0.01 * p.grad)
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
    assert not any(broken(follower, "cleared_between_backwards"))


def test_a_closure_that_clears_and_runs_backward_breaks_no_promise(follow: Callable[..., Follower]) -> None:
    model, _ = net()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
    follower = follow(optimizer)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    for promise in ("stale_gradients", "gradients_cleared", "cleared_between_backwards"):
        assert not any(broken(follower, promise)), promise
    assert not follower.contracts.step_is_missing


def test_a_loop_that_never_steps_is_noticed_after_some_rounds(follow: Callable[..., Follower]) -> None:
    model, optimizer = net()
    follower = follow(optimizer)
    for _ in range(ROUNDS_WITHOUT_STEP + 1):
        optimizer.zero_grad()
        loss_of(model).backward()
    assert follower.contracts.step_is_missing
    assert follower.contracts.steps_missing == ROUNDS_WITHOUT_STEP


def test_a_long_accumulation_window_is_no_missing_step(follow: Callable[..., Follower]) -> None:
    model, optimizer = net()
    follower = follow(optimizer)
    for _ in range(BACKWARDS_WITHOUT_STEP - 1):
        loss_of(model).backward()
    assert not follower.contracts.step_is_missing


def test_the_interposer_puts_everything_back() -> None:
    before = (torch.autograd.backward, torch.optim.Optimizer.zero_grad, torch.utils.data.DataLoader.__iter__)
    follower = Follower()
    PROCESS.add(follower)  # type: ignore[arg-type]
    assert torch.autograd.backward is not before[0]
    PROCESS.remove(follower)  # type: ignore[arg-type]
    assert before == (torch.autograd.backward, torch.optim.Optimizer.zero_grad, torch.utils.data.DataLoader.__iter__)
    assert PROCESS.missing == ()
