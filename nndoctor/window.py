"""What happened between two frames, and the signals that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

import torch

from nndoctor.probes.base import Measured
from nndoctor.probes.loop import Contract


@dataclass(slots=True)
class Window:
    """What happened since the last frame; one of these per step.

    Args:
        begun: when it began, of ``perf_counter``.
        losses: handed to ``backward()``, one per micro-step.
        forwards: forward passes of whole models.
        stepped: ``id`` of the optimizers that stepped.
        sampled: tiers that measure in it; none on most steps.
        eval_forward, trained_in_eval: the last forward pass, and one that was trained on, ran in evaluation mode.
        tiles: seconds of the parts of the loop.
        own: seconds of the doctor's own work.
        preclip, max_norm: what gradient clipping was told.
        skipped: steps that a gradient scaler left out.
        found_inf: the scaler's verdict, where the optimizer itself leaves the step out.
    """

    begun: float = field(default_factory=perf_counter)
    losses: list[torch.Tensor | float] = field(default_factory=list)
    forwards: int = 0
    contract: Contract = field(default_factory=Contract)
    stepped: list[int] = field(default_factory=list)
    sampled: frozenset[str] = frozenset()
    eval_forward: bool = False
    trained_in_eval: bool = False
    tiles: dict[str, float] = field(default_factory=dict)
    own: float = 0.0
    preclip: object = None
    max_norm: object = None
    skipped: int = 0
    found_inf: torch.Tensor | None = None

    def add(self, tile: str, seconds: float) -> None:
        self.tiles[tile] = self.tiles.get(tile, 0.0) + seconds

    @property
    def promise_broken(self) -> bool:
        """Whether anything of the loop's contract was broken, or a step skipped, since the last frame."""
        contract = self.contract
        return (
            contract.stale_gradients
            or contract.gradients_cleared
            or contract.cleared_between_backwards
            or self.skipped > 0
            or self.trained_in_eval
        )

    def promises(self) -> dict[str, Measured]:
        """How the loop kept its contract."""
        contract = self.contract
        signals: dict[str, Measured] = {
            "loop.backwards": float(len(self.losses) or contract.backwards),
            "loop.forwards": float(self.forwards),
            "loop.stale_gradients": float(contract.stale_gradients),
            "loop.gradients_cleared": float(contract.gradients_cleared),
            "loop.cleared_between_backwards": float(contract.cleared_between_backwards),
            "step.skipped": float(self.skipped > 0),
        }
        if self.found_inf is not None:
            signals["step.skipped"] = self.found_inf.float().reshape(1)
        return signals

    def times(self, elapsed: float, *, loader_seen: bool) -> dict[str, Measured]:
        """Where the `elapsed` seconds of the step went; the parts on sampled steps only."""
        if elapsed <= 0:
            return {}
        tiles = self.tiles
        waited = tiles.get("data_wait", 0.0)
        found: dict[str, Measured] = {"step.time": elapsed}
        if loader_seen:
            found["step.data_wait_fraction"] = min(1.0, waited / elapsed)
        if not self.sampled:
            return found
        if loader_seen:
            found["step.data_wait"] = waited
        for name in ("forward", "backward", "optimizer", "loss"):
            if name in tiles:
                found[f"step.{name}"] = tiles[name]
        found["step.doctor"] = self.own
        found["step.other"] = max(0.0, elapsed - sum(tiles.values()) - self.own)
        return found


def the_scalar(loss: object) -> torch.Tensor | None:
    """The loss, if what was handed to ``backward()`` is one scalar tensor."""
    scalar = loss[0] if isinstance(loss, (tuple, list)) and len(loss) == 1 else loss
    return scalar if isinstance(scalar, torch.Tensor) and scalar.numel() == 1 else None


def note_clipping(measured: dict[str, Measured], preclip: object, max_norm: object) -> None:
    """Add what gradient clipping was told to `measured`; nothing where nothing was clipped."""
    if preclip is None:
        return
    for name, value in (("grad.total_norm_preclip", preclip), ("clip.max_norm", max_norm)):
        if isinstance(value, torch.Tensor):
            measured[name] = value.reshape(1)
        elif isinstance(value, (int, float)):
            measured[name] = float(value)


def at_once(scalar: torch.Tensor) -> torch.Tensor | float:
    """A scalar's value: a number on the CPU, a copy that stays on its device elsewhere."""
    if scalar.is_cpu and type(scalar) is torch.Tensor:  # not device.type, which costs twice as much as the reading
        return float(scalar.item())
    return scalar.detach().clone().reshape(1)


def together(losses: Sequence[torch.Tensor | float]) -> Measured:
    """The losses of one step, as numbers or as one tensor of shape (micro-steps,)."""
    tensors = [loss for loss in losses if isinstance(loss, torch.Tensor)]
    if not tensors:
        return [loss for loss in losses if not isinstance(loss, torch.Tensor)]
    return torch.cat([torch.as_tensor(loss, dtype=torch.float32, device=tensors[0].device).reshape(1) for loss in losses])


def worst(one: Contract, other: Contract) -> Contract:
    """What was broken by any of several optimizers in one frame."""
    return Contract(
        backwards=max(one.backwards, other.backwards),
        stale_gradients=one.stale_gradients or other.stale_gradients,
        gradients_cleared=one.gradients_cleared or other.gradients_cleared,
        cleared_between_backwards=one.cleared_between_backwards or other.cleared_between_backwards,
    )
