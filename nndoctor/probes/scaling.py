"""Mixed precision by contract: what the gradient scaler was asked to do, in which order, on which gradients.

A scaler multiplies the loss, so every gradient carries its factor until ``unscale_`` (or ``step``) takes it off.
One state per optimizer follows whether its gradients carry the factor at the moment; no value is read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

import torch
from torch.amp import GradScaler

from nndoctor.discovery import ModelIndex
from nndoctor.interpose import version_of
from nndoctor.probes.base import CONTRACT, Measured

RECENT = 100
"""Calls of ``scaler.step`` over which the share of skipped ones is taken."""

SKIPS_OF_NOTE = 10
"""Skipped steps in a row from which on they are news on a step that is not sampled; a settling scale has a few."""

LOOKED_THROUGH = 16
"""Parameters of an optimizer among which one with a gradient is looked for."""

BREACHES = (
    "amp.clipped_scaled", "amp.stepped_scaled", "amp.never_scaled", "amp.updated_early", "amp.unscaled_early",
    "amp.refused_step", "amp.refused_unscale",
)  # fmt: skip


@dataclass
class _Gradients:
    """The gradients of one optimizer between two of its steps.

    Args:
        params: its parameters, as they were when it was first seen.
        watched: one of them that got a gradient.
        before, mark: identity and version of that gradient before and after the last backward.
        scaled: a backward of a scaled loss reached them; plain: one of a loss that no scaler had multiplied.
        unscaled: the factor was taken off.
        updated: ``scaler.update()`` ran after that and before the step.
        clips: how often they were clipped since the last backward.
        clipped_scaled: they were clipped while they carried the factor.
        unscaled_early: a scaled backward added to them after the factor had been taken off.
        in_scaler: ``scaler.step`` is running. stepped: the optimizer stepped inside of it.
        fresh_scalers: steps in a row that each used a scaler never seen before.
    """

    params: list[torch.Tensor]
    watched: torch.Tensor | None = None
    before: tuple[int, int] | None = None
    mark: tuple[int, int] | None = None
    scaled: bool = False
    plain: bool = False
    unscaled: bool = False
    updated: bool = False
    clips: int = 0
    clipped_scaled: bool = False
    unscaled_early: bool = False
    in_scaler: bool = False
    stepped: bool = False
    fresh_scalers: int = 0

    def now(self) -> tuple[int, int] | None:
        """Identity and version of the watched gradient at this moment; None where there is none."""
        if self.watched is None:
            self.watched = next((p for p in self.params[:LOOKED_THROUGH] if p.grad is not None), None)
        gradient = self.watched.grad if self.watched is not None else None
        return (id(gradient), version_of(gradient)) if gradient is not None else None

    def untouched(self) -> bool:
        """Whether nothing but clipping wrote the watched gradient since backward: no division by hand."""
        now, mark = self.now(), self.mark
        return now is not None and mark is not None and now == (mark[0], mark[1] + self.clips)

    def cleared(self) -> None:
        """Nothing is left of earlier backward passes, nor of what was done to their gradients."""
        self.scaled = self.plain = self.unscaled = self.updated = False
        self.clipped_scaled = self.unscaled_early = False
        self.clips = 0

    def next_window(self) -> None:
        self.cleared()
        self.in_scaler = self.stepped = False


@dataclass
class _Told:
    """What is waiting to be collected."""

    breaches: set[str] = field(default_factory=set)
    loss_and_scaled: tuple[torch.Tensor, torch.Tensor] | None = None
    half: bool = False


class ScalingProbe:
    """Follows the gradient scaler through ``scale``, ``unscale_``, ``clip_grad_norm_``, ``step`` and ``update``."""

    name = "scaling"
    tier = CONTRACT
    signals = (*BREACHES, "amp.half", "amp.scaler", "amp.scale", "amp.fresh_scalers", "amp.skips_in_row", "amp.skip_fraction")

    def __init__(self) -> None:
        self.news = False
        self._states: dict[int, _Gradients] = {}
        self._owners: dict[int, _Gradients] = {}
        self._scalers: WeakSet[Any] = WeakSet()
        self._clears: WeakKeyDictionary[Any, tuple[_Gradients, ...]] = WeakKeyDictionary()
        self._enabled: bool | None = None
        self._waiting = 0
        self._unscaled_loss: Callable[[], object] = _nothing
        self._backward_scaled = False
        self._devices: tuple[str, ...] = ()
        self._skips_in_row = 0
        self._skips: deque[bool] = deque(maxlen=RECENT)
        self._told = _Told()

    def attach(self, index: ModelIndex) -> None:
        self._devices = tuple(sorted({p.device.type for p in index.params}))

    def detach(self) -> None:
        self._states.clear()
        self._owners.clear()
        self._told = _Told()

    def begin_step(self, step: int, sampled: bool) -> None: ...

    @property
    def sleeps(self) -> bool:
        """Without a gradient scaler in the loop there is nothing to follow between sampled steps."""
        return self._enabled is None

    # ------------------------------------------------------------------ what the loop calls

    def forward_begins(self, root: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._told.half = any(
            torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
            for device in self._devices
        )

    def loss_scaled(self, loss: object, scaled: object) -> None:
        """A disabled scaler hands back the very loss that it was given."""
        if scaled is loss:
            self._enabled = bool(self._enabled)
            return
        self._enabled = True
        self._waiting += 1
        if isinstance(loss, torch.Tensor) and isinstance(scaled, torch.Tensor) and loss.numel() == 1:
            self._unscaled_loss = ref(loss)
            self._told.loss_and_scaled = (loss.detach(), scaled.detach())

    def backward_begins(self, loss: object) -> None:
        # The loss that was handed to scale() and not what came back: whatever was scaled was thrown away.
        self._backward_scaled = self._waiting > 0 and loss is not self._unscaled_loss()
        self._waiting = max(0, self._waiting - 1)
        if self._enabled is None:
            return  # no scaler in this loop: nothing to follow
        for state in self._states.values():
            state.before = state.now()
            if state.before is None:
                state.cleared()

    def backward_ended(self) -> None:
        if self._enabled is None:
            return
        for state in self._states.values():
            mark = state.now()
            if mark is None or mark == state.before:
                continue  # this loss does not reach them
            if self._backward_scaled and state.unscaled and not state.stepped:
                state.unscaled_early = True
            state.scaled = state.scaled or self._backward_scaled
            state.plain = state.plain or not self._backward_scaled
            state.mark, state.clips = mark, 0

    def gradients_zeroed(self, owner: object) -> None:
        if self._enabled is None:
            return
        if owner not in self._clears:
            owned = {id(p) for p in _parameters(owner)}
            self._clears[owner] = tuple(s for s in self._states.values() if s.params and id(s.params[0]) in owned)
        for state in self._clears[owner]:
            state.cleared()

    def clipping(self, parameters: object) -> None:
        state = self._owner(parameters)
        if state is None:
            return
        if state.scaled and not state.unscaled and state.untouched():
            state.clipped_scaled = True
        state.clips += 1

    def gradients_unscaled(self, scaler: object, optimizer: object) -> None:
        if isinstance(scaler, GradScaler) and scaler.is_enabled() and isinstance(optimizer, torch.optim.Optimizer):
            state = self._state(optimizer)
            if state.plain and not state.scaled and type(scaler).scale is GradScaler.scale:
                self._broken("amp.never_scaled")
            state.unscaled = True

    def scaler_updated(self, scaler: object) -> None:
        self._waiting = 0
        for state in self._states.values():
            state.updated = state.unscaled and not state.stepped

    def scaler_stepping(self, scaler: object, optimizer: object) -> None:
        if not isinstance(scaler, GradScaler) or not isinstance(optimizer, torch.optim.Optimizer):
            return
        if not scaler.is_enabled():
            self._enabled = bool(self._enabled)
            return
        self._enabled = True
        state = self._state(optimizer)
        state.in_scaler = True
        state.fresh_scalers = 0 if scaler in self._scalers else state.fresh_scalers + 1
        self._scalers.add(scaler)
        if state.clipped_scaled:
            self._broken("amp.clipped_scaled")
        if state.unscaled_early:
            self._broken("amp.unscaled_early")
        if state.updated:
            self._broken("amp.updated_early")

    def gradients_ready(self, optimizer: torch.optim.Optimizer) -> None:
        state = self._state(optimizer)
        if state.in_scaler or getattr(optimizer, "grad_scale", None) is not None:
            return
        if state.scaled and not state.unscaled and state.untouched():
            self._broken("amp.stepped_scaled")

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        state = self._state(optimizer)
        if state.in_scaler:
            state.stepped = True
        else:
            state.next_window()

    def scaler_stepped(self, optimizer: object) -> None:
        state = self._states.get(id(optimizer))
        if state is None or not state.in_scaler:
            return
        self._skips.append(not state.stepped)
        self._skips_in_row = 0 if state.stepped else self._skips_in_row + 1
        self.news = self.news or self._skips_in_row >= SKIPS_OF_NOTE
        state.next_window()

    def scaler_refused(self, optimizer: object, call: str) -> None:
        self._broken("amp.refused_step" if call == "step" else "amp.refused_unscale")

    # ------------------------------------------------------------------ what it knows

    def _broken(self, breach: str) -> None:
        self._told.breaches.add(breach)
        self.news = True

    def _state(self, optimizer: torch.optim.Optimizer) -> _Gradients:
        state = self._states.get(id(optimizer))
        if state is None:
            params = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
            state = self._states[id(optimizer)] = _Gradients(params)
            self._owners.update((id(p), state) for p in params)
            self._clears.clear()
        return state

    def _owner(self, parameters: object) -> _Gradients | None:
        """The state of the optimizer that holds the first of `parameters` that any holds."""
        if isinstance(parameters, torch.Tensor):
            return self._owners.get(id(parameters))
        if not isinstance(parameters, Iterable) or iter(parameters) is parameters:
            return None  # a generator would be used up by looking
        return next((self._owners[id(p)] for p in parameters if id(p) in self._owners), None)

    def collect(self) -> Mapping[str, Measured]:
        self.news = False
        told, self._told = self._told, _Told(half=self._told.half)
        measured: dict[str, Measured] = {}
        if told.half or self._enabled is not None:
            measured["amp.half"] = float(told.half)
        if self._enabled is not None:
            measured["amp.scaler"] = float(self._enabled)
        if self._enabled or told.breaches:
            measured.update((breach, float(breach in told.breaches)) for breach in BREACHES)
            measured["amp.fresh_scalers"] = float(max((s.fresh_scalers for s in self._states.values()), default=0))
            measured["amp.skips_in_row"] = float(self._skips_in_row)
            if len(self._skips) == RECENT:
                measured["amp.skip_fraction"] = sum(self._skips) / RECENT
        if told.loss_and_scaled is not None:
            loss, scaled = told.loss_and_scaled
            measured["amp.scale"] = (scaled.float() / loss.float()).reshape(1)
        return measured


def _nothing() -> None:
    """Stands for the weak reference to a loss where there was none."""


def _parameters(owner: object) -> Iterable[torch.Tensor]:
    if isinstance(owner, torch.optim.Optimizer):
        return (p for group in owner.param_groups for p in group["params"])
    return owner.parameters() if isinstance(owner, torch.nn.Module) else ()
