"""Whether the learning rate schedule is advanced after the optimizer's step, as it has to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import CONTRACT, Measured


@dataclass
class _Turn:
    """One optimizer and the schedules that set its rate.

    Args:
        steps: steps it took, those that a gradient scaler skipped included.
        calls: before its first step, how often each schedule was advanced.
        backward: gradients are waiting for a step. advanced: a schedule was advanced meanwhile.
        in_row: steps in a row before which, after their backward, a schedule was advanced.
    """

    steps: int = 0
    calls: dict[int, int] = field(default_factory=dict)
    backward: bool = False
    advanced: bool = False
    in_row: int = 0


class ScheduleProbe:
    """Follows ``scheduler.step()`` against ``backward()`` and ``optimizer.step()``."""

    name = "schedule"
    tier = CONTRACT
    sleeps = True
    signals = ("schedule.before_first_step", "schedule.before_step")

    def __init__(self) -> None:
        self.news = False
        self._turns: dict[int, _Turn] = {}
        self._resumed = False
        self._skipped_first = False
        self._backward_seen = False

    def attach(self, index: ModelIndex) -> None: ...

    def detach(self) -> None:
        self._turns.clear()

    def begin_step(self, step: int, sampled: bool) -> None:
        for turn in self._turns.values():  # what came before, this probe may have slept through
            turn.backward = turn.advanced = False

    def state_loaded(self, module: object, missing: object, unexpected: object) -> None:
        """A resumed run winds its schedule forward before the first step, on purpose."""
        self._resumed = True

    def scheduler_stepped(self, scheduler: object) -> None:
        optimizer = getattr(scheduler, "optimizer", None)
        if optimizer is None or isinstance(scheduler, ReduceLROnPlateau):
            return  # a schedule that waits for a metric has no first value to skip
        turn = self._turn(optimizer)
        turn.advanced = turn.advanced or turn.backward
        if turn.steps == 0 and not optimizer.state:
            turn.calls[id(scheduler)] = turn.calls.get(id(scheduler), 0) + 1

    def backward_begins(self, loss: object) -> None:
        self._backward_seen = True
        for turn in self._turns.values():
            turn.backward, turn.advanced = True, False

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        self._stepped(self._turn(optimizer))

    def scaler_stepped(self, optimizer: object) -> None:
        turn = self._turn(optimizer)
        if turn.backward:  # else it stepped inside of the scaler, and was told
            self._stepped(turn)

    def _turn(self, optimizer: object) -> _Turn:
        return self._turns.setdefault(id(optimizer), _Turn(backward=self._backward_seen))

    def _stepped(self, turn: _Turn) -> None:
        turn.in_row = turn.in_row + 1 if turn.advanced else 0
        # Several calls wind a schedule forward; a single one is the order that torch 1.1 gave up.
        if turn.steps == 0 and not self._resumed and 1 in turn.calls.values():
            self._skipped_first = self.news = True
        self.news = self.news or turn.in_row > 0
        turn.steps += 1
        turn.backward = turn.advanced = False

    def collect(self) -> Mapping[str, Measured]:
        self.news = False
        return {
            "schedule.before_first_step": float(self._skipped_first),
            "schedule.before_step": float(max((turn.in_row for turn in self._turns.values()), default=0)),
        }
