"""Measures what interrupts training between two steps: evaluations and checkpoints, on every step on which there is one."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

from torch import nn

from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import CONTRACT, Measured


class PausesProbe:
    """Seconds of a step that went into evaluation and into writing checkpoints.

    An evaluation lasts from the first forward pass without gradients to the end of the last, as long as no backward
    lies between them.
    """

    name = "pauses"
    tier = CONTRACT
    signals = ("step.evaluation", "step.checkpoint")

    def __init__(self) -> None:
        self.news = False
        self._evaluation = self._checkpoint = 0.0
        self._begun: float | None = None
        self._ended: float | None = None
        self._saving: float | None = None

    def attach(self, index: ModelIndex) -> None: ...

    def detach(self) -> None: ...

    def begin_step(self, step: int, sampled: bool) -> None: ...

    def evaluation_begins(self, root: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if self._begun is None:
            self._begun = self._ended if self._ended is not None else perf_counter()

    def evaluation_ended(self, root: nn.Module, output: object) -> None:
        if self._begun is not None:
            self._ended = perf_counter()
            self._evaluation += self._ended - self._begun
            self._begun = None

    def backward_begins(self, loss: object) -> None:
        """Training goes on: passes before and after this belong to two evaluations, and this step tells of the first."""
        self._begun = self._ended = None
        if self._evaluation or self._checkpoint:
            self.news = True

    def part_begins(self, part: str) -> None:
        if part == "checkpoint":
            self._saving = perf_counter()

    def part_ended(self, part: str) -> None:
        if part == "checkpoint" and self._saving is not None:
            self._checkpoint += perf_counter() - self._saving
            self._saving = None

    def collect(self) -> Mapping[str, Measured]:
        """Seconds since the step before; 0 where there was neither."""
        measured = {"step.evaluation": self._evaluation, "step.checkpoint": self._checkpoint}
        self._evaluation = self._checkpoint = 0.0
        self._ended = None
        self.news = False
        return measured

    def facts(self) -> dict[str, Any]:
        """What came after the last step, or since."""
        return {"pauses_since_step": {"evaluation": round(self._evaluation, 6), "checkpoint": round(self._checkpoint, 6)}}
