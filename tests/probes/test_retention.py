"""Graphs of past steps that somebody keeps are counted; those of an ordinary loop are gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nndoctor.probes.retention import RetentionProbe

X = torch.linspace(-1, 1, 12).reshape(4, 3)


def counts(step: Callable[[nn.Module], tuple[Tensor, object]], steps: int = 8) -> tuple[float, float]:
    """Retained losses and outputs after so many steps of a loop that makes (loss, what it keeps) of a model."""
    model, probe = nn.Linear(3, 2), RetentionProbe()
    kept: list[object] = []
    for _ in range(steps):
        loss, keep = step(model)
        probe.forward_ended(model, model.out if hasattr(model, "out") else None)
        model.out = None
        probe.backward_begins(loss)
        loss.backward()
        probe.stepped(None)
        kept.append(keep)
        del loss, keep
    found = probe.collect()
    return found["graph.retained_losses"], found["graph.retained_outputs"]  # type: ignore[return-value]


def ordinary(model: nn.Module) -> tuple[Tensor, object]:
    model.out = model(X)
    loss = model.out.square().mean()
    return loss, loss.item()


def keeps_loss(model: nn.Module) -> tuple[Tensor, object]:
    loss = ordinary(model)[0]
    return loss, loss


def keeps_scaled_loss(model: nn.Module) -> tuple[Tensor, object]:
    loss = ordinary(model)[0]
    return loss / 4, loss


def keeps_output(model: nn.Module) -> tuple[Tensor, object]:
    loss = ordinary(model)[0]
    return loss, model.out


def keeps_detached(model: nn.Module) -> tuple[Tensor, object]:
    loss = ordinary(model)[0]
    return loss, (loss.detach(), model.out.detach())


@pytest.mark.parametrize(
    ("step", "losses", "outputs"),
    [(ordinary, 0, 0), (keeps_detached, 0, 0), (keeps_loss, 7, 7), (keeps_scaled_loss, 7, 7), (keeps_output, 0, 7)],
)
def test_what_is_kept_with_its_history_is_counted(
    step: Callable[[nn.Module], tuple[Tensor, object]], losses: int, outputs: int
) -> None:
    assert counts(step) == (losses, outputs)


def test_a_running_sum_keeps_every_loss_alive() -> None:
    model, probe = nn.Linear(3, 2), RetentionProbe()
    total: Tensor | float = 0.0
    for _ in range(6):
        loss = model(X).square().mean()
        probe.backward_begins(loss)
        loss.backward()
        probe.stepped(None)
        total = total + loss
    assert probe.news
    assert probe.collect()["graph.retained_losses"] == 5
    del total, loss
    assert probe.collect()["graph.retained_losses"] == 0


def test_micro_steps_of_one_window_are_not_called_past() -> None:
    model, probe = nn.Linear(3, 2), RetentionProbe()
    for _ in range(4):
        window = [model(X).square().mean() for _ in range(8)]
        for loss in window:
            probe.backward_begins(loss)
            loss.backward()
        probe.stepped(None)
    assert probe.collect()["graph.retained_losses"] == 0


def test_notes_change_no_gradient() -> None:
    model, probe = nn.Linear(3, 2), RetentionProbe()
    expected = torch.autograd.grad(model(X).square().mean(), model.weight)[0]
    loss = model(X).square().mean()
    probe.backward_begins(loss)
    loss.backward()
    assert torch.equal(model.weight.grad, expected)


def test_the_variables_of_two_optimizers_that_take_turns_are_not_called_past() -> None:
    draw, judge, probe = nn.Linear(3, 3), nn.Linear(3, 1), RetentionProbe()
    for _ in range(8):
        fake = draw(X)
        probe.forward_ended(draw, fake)
        for loss, optimizer in ((judge(fake.detach()), "judge"), (judge(fake), "draw")):
            probe.forward_ended(judge, loss)
            held = loss.mean()
            probe.backward_begins(held)
            held.backward()
            probe.stepped(optimizer)
    found = probe.collect()
    assert max(found["graph.retained_losses"], found["graph.retained_outputs"]) <= 1  # type: ignore[type-var]
