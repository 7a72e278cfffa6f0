"""The contract of the training loop: what was called in which order on which gradients.

A state machine over events, one per optimizer; it reads no values, only whether gradients are there,
which tensor they are and how often that tensor was written. So it needs no threshold and costs
microseconds on every step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from nndoctor.interpose import version_of

WATCHED = 2
"""Parameters per optimizer whose gradients are looked at: the first and the last tell as much as all."""

ROUNDS_WITHOUT_STEP = 10
"""Rounds of backward and clearing after which a step counts as missing; longer than a window of
accumulation in which every micro-step wrongly clears is, in almost every script."""

BACKWARDS_WITHOUT_STEP = 130
"""Backward calls alone after which a step counts as missing; accumulation windows go up to about 128."""


@dataclass(frozen=True)
class Contract:
    """What the loop did between two steps of one optimizer.

    Args:
        backwards: backward calls.
        stale_gradients: the first backward added to gradients that had already been applied.
        gradients_cleared: backward had computed gradients, and they were gone when the optimizer stepped.
        cleared_between_backwards: gradients were cleared between two backward calls of the window.
    """

    backwards: int = 0
    stale_gradients: bool = False
    gradients_cleared: bool = False
    cleared_between_backwards: bool = False


@dataclass(frozen=True, slots=True)
class _Mark:
    """The identity of one parameter's gradient at one moment."""

    gradient: int | None
    version: int
    weight_version: int


def _mark(param: torch.Tensor) -> _Mark:
    gradient = param.grad
    if gradient is None:
        return _Mark(None, 0, version_of(param))
    return _Mark(id(gradient), version_of(gradient), version_of(param))


def _parameter_ids(owner: object) -> set[int]:
    if isinstance(owner, torch.optim.Optimizer):
        return {id(p) for group in owner.param_groups for p in group["params"]}
    return {id(p) for p in owner.parameters()} if isinstance(owner, torch.nn.Module) else set()


@dataclass
class _OptimizerState:
    params: list[torch.nn.Parameter]
    steps: int = 0
    backwards: int = 0
    stale: bool = False
    cleared_between: bool = False
    zeroed: bool = False
    rounds: int = 0
    after_step: list[_Mark] = field(default_factory=list)
    after_backward: list[_Mark] = field(default_factory=list)
    inside_step: bool = False


class LoopContracts:
    """Follows ``backward``, ``zero_grad`` and ``step`` and says which promises of the loop were broken."""

    def __init__(self) -> None:
        self._states: dict[int, _OptimizerState] = {}
        self._step_since_backward = False
        self.rounds_without_step = 0
        self.backwards_without_step = 0
        self._watching = True

    def watch(self, watching: bool) -> None:
        """Follow the windows from here on, or only count backward calls until told to follow again."""
        if watching and not self._watching:
            for state in self._states.values():
                state.after_step = [_mark(p) for p in state.params] if state.steps else []
                state.after_backward = []
                state.backwards = 0
                state.stale = state.cleared_between = state.zeroed = False
        self._watching = watching

    def register(self, optimizer: torch.optim.Optimizer) -> None:
        """Follow `optimizer`; the parameters it watches are spread over its groups."""
        params = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        stride = max(1, len(params) // (WATCHED - 1))
        state = self._states.setdefault(id(optimizer), _OptimizerState([]))
        state.params = [*params[::stride][: WATCHED - 1], *params[-1:]]

    def backward_begins(self) -> None:
        if not self._watching:
            return
        for state in self._states.values():
            marks = [_mark(p) for p in state.params]
            if state.backwards == 0:
                state.stale = state.steps > 0 and any(
                    now.gradient is not None and (now.gradient, now.version) == (before.gradient, before.version)
                    for now, before in zip(marks, state.after_step, strict=False)
                )
            else:
                cleared = state.zeroed or any(
                    now.gradient is None and before.gradient is not None
                    for now, before in zip(marks, state.after_backward, strict=False)
                )
                # Sharpness-aware and meta optimizers move the weights in between, on purpose; a backward
                # of another network's loss may be cleared once that network has stepped.
                moved = any(
                    now.weight_version != before.weight_version
                    for now, before in zip(marks, state.after_backward, strict=False)
                )
                if cleared:
                    state.stale = False
                if cleared and not moved and not self._step_since_backward and not state.inside_step:
                    state.cleared_between = True
                    state.rounds += 1
            state.zeroed = False
        self._step_since_backward = False

    def backward_ended(self) -> None:
        self.backwards_without_step += 1
        if not self._watching:
            return
        for state in self._states.values():
            state.after_backward = [_mark(p) for p in state.params]
            if any(mark.gradient is not None for mark in state.after_backward):
                state.backwards += 1
        self.rounds_without_step = max((s.rounds for s in self._states.values()), default=0)

    def gradients_zeroed(self, owner: object) -> None:
        """zero_grad of `owner`, an optimizer or a module, ran; what it did is read off the gradients."""
        if not self._watching:
            return
        owned = _parameter_ids(owner)
        for state in self._states.values():
            if not any(id(p) in owned for p in state.params):
                continue
            changed = any(
                now.gradient is None or now.version != before.version
                for now, before in zip((_mark(p) for p in state.params), state.after_backward, strict=False)
                if before.gradient is not None
            )
            if changed and state.backwards:
                state.zeroed = True
            if changed or not state.after_backward:
                state.stale = False

    def before_step(self, optimizer: torch.optim.Optimizer) -> Contract:
        """The contract of the window that this step of `optimizer` closes."""
        state = self._states.get(id(optimizer))
        if state is None:
            self.register(optimizer)
            return Contract()
        state.inside_step = True
        if state.backwards == 0 or not self._watching:
            return Contract()
        had = [p.grad for p, mark in zip(state.params, state.after_backward, strict=False) if mark.gradient is not None]
        lost_all = bool(had) and all(gradient is None for gradient in had)
        return Contract(
            backwards=state.backwards,
            stale_gradients=state.stale,
            gradients_cleared=lost_all or (state.zeroed and not self._rewritten(state)),
            cleared_between_backwards=state.cleared_between,
        )

    @staticmethod
    def _rewritten(state: _OptimizerState) -> bool:
        """Whether gradients were put in place by hand after the clearing (gradient surgery)."""
        return any(
            p.grad is not None and mark.gradient is not None and id(p.grad) != mark.gradient
            for p, mark in zip(state.params, state.after_backward, strict=False)
        )

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        state = self._states.get(id(optimizer))
        if state is None:
            return
        state.after_step = [_mark(p) for p in state.params] if self._watching else []
        state.steps += 1
        state.backwards = 0
        state.stale = state.cleared_between = state.zeroed = state.inside_step = False
        self._end_window()

    def skipped(self, optimizer: torch.optim.Optimizer) -> None:
        """The gradient scaler left out this step; its gradients may be cleared or stay."""
        state = self._states.get(id(optimizer))
        if state is not None:
            state.after_step = []
            state.backwards = 0
            state.stale = state.cleared_between = state.zeroed = False
        self._end_window()

    def _end_window(self) -> None:
        self._step_since_backward = True
        self.rounds_without_step = 0
        self.backwards_without_step = 0
        for state in self._states.values():
            state.rounds = 0

    @property
    def step_is_missing(self) -> bool:
        """Whether so much backward without any step is no window of accumulation any more."""
        return (
            self.rounds_without_step >= ROUNDS_WITHOUT_STEP or self.backwards_without_step >= BACKWARDS_WITHOUT_STEP
        )

    @property
    def steps_missing(self) -> int:
        """Rounds of backward and clearing (or of backward alone) since the last step."""
        if self.rounds_without_step >= ROUNDS_WITHOUT_STEP:
            return self.rounds_without_step
        return self.backwards_without_step if self.backwards_without_step >= BACKWARDS_WITHOUT_STEP else 0
