"""How the work is shared in a mixture of experts: what share of the rows each expert is given.

Experts are equal modules in one list of which a router picks: the module that owns the list (or one above it) has
a layer with one output per expert, and the experts are given different numbers of rows, or none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import Measured
from nndoctor.probes.data import first_tensor
from nndoctor.probes.forward import HookSet, Place, in_backward, is_transformed, places

WINDOW = 4
"""Sampled steps over which the shares are taken together, so that a small batch is no imbalance."""

FEWEST_ROWS = 16
"""Rows per expert that the window must have seen, on average, before a share is told."""

MOST_EXPERTS = 512


@dataclass(frozen=True)
class Mixture:
    """One list of experts.

    Args:
        name: of the list.
        experts: the places of its members.
    """

    name: str
    experts: tuple[Place, ...]


def mixtures(index: ModelIndex) -> tuple[Mixture, ...]:
    """Every list of equal modules beside a layer with one output for each of them."""
    by_module = {id(place.module): place for place in places(index)[0]}
    found: list[Mixture] = []
    for key, root in index.roots.items():
        for name, module in root.named_modules():
            if not isinstance(module, (nn.ModuleList, nn.ModuleDict)) or not 2 <= len(module) <= MOST_EXPERTS:
                continue
            members = list(module.children())
            known = [by_module[id(member)] for member in members if id(member) in by_module]
            if len(known) == len(members) and _alike(members) and _has_router(root, name, len(members)):
                found.append(Mixture(".".join(part for part in (key, name) if part), tuple(known)))
    return tuple(found)


def _alike(members: list[nn.Module]) -> bool:
    shapes = [(type(member), tuple(tuple(param.shape) for param in member.parameters())) for member in members]
    return bool(shapes[0][1]) and all(shape == shapes[0] for shape in shapes)


def _has_router(root: nn.Module, name: str, experts: int) -> bool:
    """Whether a layer with `experts` outputs is in the module that owns the list, outside of the list itself."""
    parent = root.get_submodule(name.rpartition(".")[0])
    inside = name.rpartition(".")[2]
    return any(
        isinstance(module, nn.Linear) and module.out_features == experts
        for child_name, child in parent.named_children()
        if child_name != inside
        for module in child.modules()
    )


class ExpertProbe:
    """Share of the rows that each expert is given, over the last few sampled steps."""

    name = "experts"
    tier = "activations"
    hooks_layers = True
    signals = ("expert.load", "expert.idle_fraction", "expert.max_load", "expert.count")

    def __init__(self) -> None:
        self._index: ModelIndex | None = None
        self._mixtures: tuple[Mixture, ...] = ()
        self._numbers: dict[int, int] = {}
        self._rows: dict[int, float] = {}
        self._window: list[dict[int, float]] = []
        self._hooks = HookSet(lambda: None)
        self._uneven: set[str] = set()

    def attach(self, index: ModelIndex) -> None:
        self._index = index
        self._mixtures = mixtures(index)
        for mixture in self._mixtures:
            for place in mixture.experts:
                number = index.layer_numbers.get(id(place.module))
                self._numbers[id(place.module)] = index.functional_layer(place.name, "expert") if number is None else number

    def detach(self) -> None:
        self._hooks.remove()
        self._window = []

    def begin_step(self, step: int, sampled: bool) -> None:
        self._hooks.remove()
        self._rows = {}
        if not sampled or not self._mixtures:
            return
        self._hooks = HookSet(lambda: None)
        for mixture in self._mixtures:
            for place in mixture.experts:
                self._hooks.before(place, self._given, keywords=True)

    def _given(self, place: Place, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """An expert is called: note how many rows it is given; the shape says, no value is read."""
        if not torch.is_grad_enabled() or in_backward() or is_transformed():
            return
        tensor = first_tensor((*args, *kwargs.values()))
        if tensor is not None and tensor.ndim:
            rows = tensor.numel() / max(1, tensor.shape[-1])
            self._rows[id(module)] = self._rows.get(id(module), 0.0) + rows

    def collect(self) -> Mapping[str, Measured]:
        failure, rows = self._hooks.failure, self._rows
        self._hooks.remove()
        self._rows = {}
        if failure is not None:
            raise failure
        if not rows or self._index is None:
            return {}
        self._window = [*self._window[1 - WINDOW :], rows]
        loads = [math.nan] * len(self._index.layers)
        idle, largest, count = 0.0, 0.0, 0
        for mixture in self._mixtures:
            share = self._shares(mixture)
            if share is None:
                continue
            for place, value in zip(mixture.experts, share, strict=True):
                loads[self._numbers[id(place.module)]] = value
            if max(share) > largest:
                largest, count = max(share), len(share)
            idle = max(idle, sum(value < 0.1 for value in share) / len(share))
        if not count:
            return {}
        return {
            "expert.load": loads,
            "expert.idle_fraction": idle,
            "expert.max_load": largest,
            "expert.count": float(count),
        }

    def _picks(self, mixture: Mixture) -> bool:
        """Whether the calls depend on the data: members that are called get different numbers of rows, or others are called."""
        called = [tuple(rows.get(id(place.module), 0.0) for place in mixture.experts) for rows in self._window]
        return any(len({count for count in counts if count}) > 1 for counts in called) or len(
            {tuple(count > 0 for count in counts) for counts in called}
        ) > 1

    def _shares(self, mixture: Mixture) -> list[float] | None:
        """Rows of each expert over the even share; None while too few were seen, or while all were always given the same."""
        totals = [sum(rows.get(id(place.module), 0.0) for rows in self._window) for place in mixture.experts]
        total, count = sum(totals), len(totals)
        if self._picks(mixture):
            self._uneven.add(mixture.name)
        if mixture.name not in self._uneven or len(self._window) < WINDOW or total < FEWEST_ROWS * count:
            return None
        return [value * count / total for value in totals]
