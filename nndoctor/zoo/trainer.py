"""A training loop as people write it, with the usual extras; the demo and the hyper-parameter cases use it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nndoctor.zoo.data import Batches

LossFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class Observer(Protocol):
    """What a training loop may tell the doctor; every Doctor is one."""

    def observe(self, **values: float) -> Any: ...


@dataclass(frozen=True)
class Trained:
    """What a run left behind: the loss of every optimizer step, and the figure it is judged by.

    Args:
        losses: mean loss of each step, in order.
        score: what two runs of a case are compared by, the smaller the better; None where only the loop's
            contract is broken and the figures need not differ.
        onset: the optimizer step at which the ailment began, where that depends on the seed.
    """

    losses: tuple[float, ...]
    score: float | None
    onset: int | None = None

    @property
    def final_loss(self) -> float:
        """Mean loss of the last twenty steps."""
        last = self.losses[-20:]
        return sum(last) / len(last) if last else float("nan")


def trained(losses: list[float]) -> Trained:
    """A run judged by its final loss."""
    run = Trained(tuple(losses), None)
    return Trained(run.losses, run.final_loss)


def fit(
    model: nn.Module,
    optimizer: Optimizer,
    loss_fn: LossFunction,
    loader: Batches,
    steps: int,
    *,
    scheduler: LRScheduler | None = None,
    accumulate: int = 1,
    bfloat16: bool = False,
    clip: float | None = None,
    val_loader: Batches | None = None,
    doctor: Observer | None = None,
) -> Trained:
    """Trains for `steps` optimizer steps, however many epochs that takes.

    Args:
        scheduler: advanced after every optimizer step.
        accumulate: micro-batches per optimizer step; the loss is divided by it.
        bfloat16: run the forward pass under CPU autocast.
        clip: largest total gradient norm.
        val_loader: evaluated after each epoch and told to `doctor` as ``val_loss`` and ``accuracy``.
    """
    losses: list[float] = []
    step_loss = 0.0
    micro_step = 0
    while len(losses) < steps:
        model.train()
        for inputs, targets in loader:
            with torch.autocast("cpu", torch.bfloat16) if bfloat16 else nullcontext():
                loss = loss_fn(model(inputs), targets) / accumulate
            loss.backward()  # type: ignore[no-untyped-call]
            step_loss += loss.item()
            micro_step += 1
            if micro_step % accumulate:
                continue
            if clip is not None:
                clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
            if scheduler is not None:
                scheduler.step()
            losses.append(step_loss)
            step_loss = 0.0
            if len(losses) == steps:
                break
        if val_loader is not None:
            val_loss, accuracy = evaluate(model, loss_fn, val_loader)
            if doctor is not None:
                doctor.observe(val_loss=val_loss, accuracy=accuracy)
    return trained(losses)


@torch.no_grad()
def evaluate(model: nn.Module, loss_fn: LossFunction, loader: Batches) -> tuple[float, float]:
    """Mean loss and share of right answers (of integer targets; NaN otherwise), in eval mode."""
    was_training = model.training
    model.eval()
    total_loss, right, seen = 0.0, 0.0, 0
    for inputs, targets in loader:
        outputs = model(inputs)
        total_loss += loss_fn(outputs, targets).item() * len(inputs)
        right += float("nan") if targets.is_floating_point() else (outputs.argmax(1) == targets).sum().item()
        seen += len(inputs)
    model.train(was_training)
    return total_loss / seen, right / seen
