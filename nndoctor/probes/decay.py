"""Which weight decay each parameter is trained with, and how the optimizer applies it."""

from __future__ import annotations

from collections.abc import Mapping
from weakref import WeakSet

import torch

from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import CONTRACT, Measured

DECOUPLED = frozenset({"AdamW", "NAdamW", "Lion", "Muon", "LAMB"})
"""Optimizers that take decay off the weight itself; others add it to the gradient, where Adam divides it by its size."""


class DecayProbe:
    """Hyper-parameters per parameter, told anew only where a group has changed."""

    name = "decay"
    tier = CONTRACT
    sleeps = True
    signals = ("param.weight_decay", "param.gain_or_bias", "decay.decoupled")

    def __init__(self) -> None:
        self._index: ModelIndex | None = None
        self._optimizers: WeakSet[torch.optim.Optimizer] = WeakSet()
        self._layout: tuple[object, ...] = ()
        self._told: dict[str, Measured] = {}

    def attach(self, index: ModelIndex) -> None:
        self._index = index

    def detach(self) -> None:
        self._index = None
        self._told = {}

    def begin_step(self, step: int, sampled: bool) -> None: ...

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizers.add(optimizer)

    def collect(self) -> Mapping[str, Measured]:
        assert self._index is not None
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        layout = (len(self._index.params), *((len(g["params"]), g.get("weight_decay")) for g in groups))
        if layout != self._layout:
            self._layout = layout
            self._told = self._look()
        return self._told

    def _look(self) -> dict[str, Measured]:
        assert self._index is not None
        numbers = self._index.param_numbers
        decays = [float("nan")] * len(self._index.params)
        decoupled: list[bool] = []
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                decay = group.get("weight_decay")
                if isinstance(decay, torch.Tensor) or not isinstance(decay, (int, float)):
                    continue
                decoupled.append(bool(group.get("decoupled_weight_decay", type(optimizer).__name__ in DECOUPLED)))
                for param in group["params"]:
                    if id(param) in numbers:
                        decays[numbers[id(param)]] = float(decay)
        if not decoupled:
            return {}
        return {
            "param.weight_decay": decays,
            "param.gain_or_bias": [float(p.dim() < 2) for p in self._index.params],
            "decay.decoupled": float(all(decoupled)),
        }
