"""What happens when a finding begins: the user's callback in the doctor's thread; a checkpoint and a stop in the training's.

Findings are made in the doctor's own thread. What concerns the training waits there for the end of a step, when
weights and optimizer state belong together.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from nndoctor.findings import Finding, Severity, StopTraining

MOST_CHECKPOINTS = 3
"""Checkpoints per run: the first causes are worth keeping, and a sick run goes on to have many findings."""

OnFinding: TypeAlias = Callable[[Finding], None]


@dataclass(frozen=True)
class Wishes:
    """What the user asked for.

    Args:
        on_finding: told of each finding when it begins, in the doctor's thread.
        on_stop: told of the finding whose rule says ``action: stop``, in the training's thread; None: StopTraining is raised.
        checkpoint_at: severity from which a finding has a checkpoint saved when it begins; None: only for ``action: checkpoint``.
    """

    on_finding: OnFinding | None = None
    on_stop: OnFinding | None = None
    checkpoint_at: Severity | None = None


class Responses:
    """Answers findings as they begin.

    Args:
        wishes: what the user asked for.
        actions: action of each rule that has one, by the rule's id.
        save: writes a checkpoint for a finding.
        failed: told of an exception in what the user handed over, as (where, error).
    """

    def __init__(
        self,
        wishes: Wishes,
        actions: Mapping[str, str],
        save: Callable[[Finding], object],
        failed: Callable[[str, Exception], None],
    ) -> None:
        self._wishes = wishes
        self._actions = actions
        self._save = save
        self._failed = failed
        self._saved = 0
        self._firing: frozenset[str] = frozenset()
        self._waiting: deque[Finding] = deque()

    @property
    def listens(self) -> bool:
        """Whether findings have to be told at all."""
        return self._wishes.on_finding is not None or self.touches_training

    @property
    def touches_training(self) -> bool:
        """Whether anything may have to be done at the end of a step."""
        return bool(self._actions) or self._wishes.checkpoint_at is not None

    def tell(self, findings: Iterable[Finding]) -> None:
        """Take the present findings; called in the doctor's thread whenever they have changed."""
        active = [f for f in findings if f.state in ("firing", "clearing") and f.suppressed is None]
        before, self._firing = self._firing, frozenset(f.rule for f in active)
        for finding in active:
            if finding.rule not in before:
                self._begins(finding)

    def _begins(self, finding: Finding) -> None:
        if self._actions.get(finding.rule) is not None or self._wants_checkpoint(finding):
            self._waiting.append(finding)
        if self._wishes.on_finding is not None:
            try:
                self._wishes.on_finding(finding)
            except Exception as error:
                self._failed(f"on_finding at {finding.rule}", error)

    def _wants_checkpoint(self, finding: Finding) -> bool:
        at = self._wishes.checkpoint_at
        return self._actions.get(finding.rule) == "checkpoint" or (at is not None and finding.severity >= at)

    def step_ended(self) -> None:
        """Do what waits for the end of a step, in the thread that trains.

        Raises:
            StopTraining: a rule with ``action: stop`` fired, and no `on_stop` was given.
        """
        stop = None
        while self._waiting:
            finding = self._waiting.popleft()
            if self._wants_checkpoint(finding) and self._saved < MOST_CHECKPOINTS:
                self._saved += 1
                try:
                    self._save(finding)
                except Exception as error:
                    self._failed(f"checkpoint for {finding.rule}", error)
            if self._actions.get(finding.rule) == "stop":
                stop = stop or finding
        if stop is None:
            return
        if self._wishes.on_stop is None:
            raise StopTraining(stop)
        self._wishes.on_stop(stop)


def save_checkpoint(
    folder: Path,
    finding: Finding,
    step: int,
    models: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> Path:
    """Write ``step-000120-dead-relu.pt``: ``step``, ``finding``, and the state dicts of ``models`` and ``optimizers`` by name.

    Raises:
        ValueError: parameters are split over processes; gathering them here would make the others wait for ever.
        OSError: the folder cannot be written.
    """
    if any(hasattr(param, "placements") for model in models.values() for param in model.parameters()):
        raise ValueError("the parameters are split over processes: save a distributed checkpoint in the training script")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:06d}-{finding.rule}.pt"
    state: dict[str, Any] = {
        "step": step,
        "finding": finding.to_dict(),
        "models": {name or "model": model.state_dict() for name, model in models.items()},
        "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers.items()},
    }
    unfinished = path.with_suffix(".unfinished")
    torch.save(state, unfinished)
    os.replace(unfinished, path)
    return path


def actions_of(rules: Sequence[Any]) -> dict[str, str]:
    """The action of each rule that has one and is on."""
    return {rule.id: rule.action for rule in rules if rule.action != "none" and rule.disabled is None}
