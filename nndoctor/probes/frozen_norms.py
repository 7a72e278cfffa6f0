"""Whether batch normalisation layers that are frozen still move their running statistics.

Compares how often the statistics were written before the step and after its forward passes; no value is
read but, once, whether the statistics had been learnt at all.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from nndoctor.discovery import ModelIndex, twins
from nndoctor.interpose import version_of
from nndoctor.probes.base import Measured

BatchNorm = nn.modules.batchnorm._NormBase


class FrozenNormProbe:
    """Finds frozen normalisation layers whose running statistics follow the batches."""

    name = "frozen norms"
    tier = "graph"
    signals = ("norm.frozen_updating",)

    def __init__(self) -> None:
        self._index: ModelIndex | None = None
        self._layers: dict[int, nn.Module] = {}
        self._excused: frozenset[int] = frozenset()
        self._learnt: torch.Tensor | None = None
        self._before: dict[int, int] = {}
        self._moved: dict[int, bool] = {}

    def attach(self, index: ModelIndex) -> None:
        self._index = index
        found = {n: m for n, m in enumerate(index.layers) if isinstance(m, BatchNorm) and m.num_batches_tracked is not None}
        self._layers = {number: module for number, module in found.items() if module.affine}
        # A momentum teacher follows its student by all it has, the statistics included.
        self._excused = frozenset(
            number for frozen, _ in twins(index) for number, module in self._layers.items() if _is_in(module, frozen)
        )

    def detach(self) -> None:
        self._index = None
        self._layers.clear()

    def begin_step(self, step: int, sampled: bool) -> None:
        self._moved = {}
        self._before = {n: version_of(_batches(m)) for n, m in self._frozen().items()} if sampled else {}
        if sampled and self._learnt is None:
            self._learnt = self._statistics_learnt()

    def state_loaded(self, module: object, missing: object, unexpected: object) -> None:
        """A checkpoint brought other statistics: begin again, and do not take that for a move."""
        self._learnt = self._statistics_learnt()
        self._before = {number: version_of(_batches(self._layers[number])) for number in self._before}

    def backward_begins(self, loss: object) -> None:
        """The forward passes of the loss are over: what was written since the step began, they wrote."""
        for number, version in self._before.items():
            module = self._layers[number]
            written = version_of(_batches(module)) != version
            self._moved[number] = self._moved.get(number, False) or (written and module.training)

    def collect(self) -> Mapping[str, Measured]:
        index, learnt = self._index, self._learnt
        if index is None or learnt is None or not self._moved or not any(p.requires_grad for p in index.params):
            return {}
        values = torch.full((len(index.layers),), torch.nan)
        for number, moved in self._moved.items():
            values[number] = float(moved)
        return {"norm.frozen_updating": values.to(learnt.device)[: len(learnt)] * learnt[: len(values)]}

    def _frozen(self) -> dict[int, nn.Module]:
        return {
            number: module
            for number, module in self._layers.items()
            if number not in self._excused and not any(p.requires_grad for p in module.parameters(recurse=False))
        }

    def _statistics_learnt(self) -> torch.Tensor | None:
        """Per layer 1 if the running statistics had left their start; waits for no device."""
        if self._index is None or not self._layers:
            return None
        device = _mean(next(iter(self._layers.values()))).device
        learnt = torch.zeros(len(self._index.layers), device=device)
        for number, module in self._layers.items():
            learnt[number] = (_mean(module) != 0).any().to(device)
        return learnt


def _mean(module: nn.Module) -> torch.Tensor:
    mean = module.running_mean
    assert isinstance(mean, torch.Tensor)
    return mean


def _batches(module: nn.Module) -> torch.Tensor:
    """The count of batches: torch raises its version in every training pass, which it does not for the mean."""
    batches = module.num_batches_tracked
    assert isinstance(batches, torch.Tensor)
    return batches


def _is_in(module: nn.Module, whole: nn.Module) -> bool:
    return any(part is module for part in whole.modules())
