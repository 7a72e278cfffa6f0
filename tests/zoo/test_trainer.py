"""The plain training loop does what its arguments say."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from nndoctor.zoo.data import Batches, batches
from nndoctor.zoo.trainer import Trained, evaluate, fit


def lines(count: int = 64, batch_size: int = 8) -> Batches:
    """Points (count, 3) and their sum (count, 1), in order."""
    inputs = torch.randn(count, 3, generator=torch.Generator().manual_seed(1))
    return batches(inputs, inputs.sum(dim=1, keepdim=True), batch_size, shuffle=False)


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def sgd(model: nn.Module, rate: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=rate)


class Heard:
    """Keeps what a loop observes."""

    def __init__(self) -> None:
        self.values: list[dict[str, float]] = []

    def observe(self, **values: float) -> None:
        self.values.append(values)


def test_it_takes_exactly_the_steps_asked_for_across_epochs() -> None:
    model = linear()
    run = fit(model, sgd(model), nn.functional.mse_loss, lines(), 19)
    assert len(run.losses) == 19
    assert run.losses[-1] < run.losses[0] / 100


def test_accumulated_micro_batches_make_the_same_step_as_one_large_batch() -> None:
    accumulated, whole = linear(), linear()
    small = fit(accumulated, sgd(accumulated), nn.functional.mse_loss, lines(batch_size=8), 4, accumulate=4)
    large = fit(whole, sgd(whole), nn.functional.mse_loss, lines(batch_size=32), 4)
    assert torch.allclose(accumulated.weight, whole.weight, atol=1e-6)
    assert small.losses == pytest.approx(large.losses, rel=1e-5)


def test_clipping_bounds_the_step() -> None:
    model = linear()
    before = model.weight.detach().clone()
    fit(model, sgd(model, 1.0), lambda a, b: 1000 * nn.functional.mse_loss(a, b), lines(), 1, clip=0.01)
    assert 0 < (model.weight - before).norm().item() <= 0.01 + 1e-6


def test_the_scheduler_follows_every_optimizer_step() -> None:
    model = linear()
    optimizer = sgd(model)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    fit(model, optimizer, nn.functional.mse_loss, lines(batch_size=8), 3, accumulate=2, scheduler=scheduler)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 8)


def test_validation_is_observed_after_every_epoch_and_leaves_train_mode_on() -> None:
    model, heard = linear(), Heard()
    fit(model, sgd(model), nn.functional.mse_loss, lines(), 17, val_loader=lines(16), doctor=heard)
    assert len(heard.values) == 3  # two whole epochs of eight steps and one cut short
    assert heard.values[-1]["val_loss"] < heard.values[0]["val_loss"]
    assert model.training


def test_bfloat16_runs_the_forward_pass_in_it_and_keeps_the_weights_in_float32() -> None:
    model, seen = linear(), []

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(outputs.dtype)
        return nn.functional.mse_loss(outputs.float(), targets)

    fit(model, sgd(model), loss_fn, lines(), 2, bfloat16=True)
    assert seen == [torch.bfloat16] * 2
    assert model.weight.dtype == torch.float32


def test_evaluate_weighs_batches_by_their_size_and_counts_right_answers() -> None:
    inputs = torch.eye(3)[[0, 1, 2, 0, 1]]  # (5, 3): the classes themselves
    loader = batches(inputs, torch.tensor([0, 1, 2, 1, 1]), 2, shuffle=False)
    loss, accuracy = evaluate(nn.Identity(), nn.functional.cross_entropy, loader)
    assert accuracy == pytest.approx(4 / 5)
    whole = nn.functional.cross_entropy(inputs, torch.tensor([0, 1, 2, 1, 1])).item()
    assert loss == pytest.approx(whole, rel=1e-6)


def test_the_accuracy_of_a_regression_is_absent_rather_than_zero() -> None:
    assert math.isnan(evaluate(linear(), nn.functional.mse_loss, lines())[1])


def test_the_final_loss_is_the_mean_of_the_last_twenty_and_absent_for_no_steps() -> None:
    assert Trained(tuple([9.0] * 80 + [1.0, 3.0] * 10), None).final_loss == 2.0
    assert math.isnan(Trained((), None).final_loss)
