"""How much of what batch normalisation will use in eval mode is still the zero mean and unit variance it began with.

Each training pass keeps ``1 - momentum`` of the running statistics, so after n passes the start has the share
``(1 - momentum) ** n``. That needs no value but, once, whether the statistics were at their start at all.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from nndoctor.discovery import ModelIndex
from nndoctor.interpose import version_of
from nndoctor.probes.base import Measured


class NormStatisticsProbe:
    """Tells normalisation layers whose running statistics do not follow the batches."""

    name = "norm statistics"
    tier = "graph"
    signals = ("norm.initial_share",)

    def __init__(self) -> None:
        self._size = 0
        self._layers: dict[int, nn.Module] = {}
        self._versions: dict[int, int] = {}
        self._at_start: torch.Tensor | None = None

    def attach(self, index: ModelIndex) -> None:
        self._size = len(index.layers)
        self._layers = {
            number: module
            for number, module in enumerate(index.layers)
            if isinstance(module, nn.modules.batchnorm._NormBase)
            and module.track_running_stats
            and isinstance(module.num_batches_tracked, torch.Tensor)
        }
        self._begin()

    def detach(self) -> None:
        self._layers.clear()

    def begin_step(self, step: int, sampled: bool) -> None:
        """Passes are counted by the version of each layer's own counter."""

    def state_loaded(self, module: object, missing: object, unexpected: object) -> None:
        """A checkpoint may bring statistics that were learnt."""
        self._begin()

    @torch.no_grad()
    def _begin(self) -> None:
        """Remember where the counters stand, and which statistics are at their start; waits for no device."""
        self._versions = {number: _passes(module) for number, module in self._layers.items()}
        flags = []
        for module in self._layers.values():
            mean, variance = module.running_mean, module.running_var
            assert isinstance(mean, torch.Tensor)
            assert isinstance(variance, torch.Tensor)
            flags.append((mean == 0).all() & (variance == 1).all())
        self._at_start = torch.stack([flag.to(flags[0].device) for flag in flags]) if flags else None  # (layers,)

    def collect(self) -> Mapping[str, Measured]:
        if self._at_start is None:
            return {}
        shares = [self._share(number) for number in self._layers]
        values = torch.full((self._size,), torch.nan, device=self._at_start.device)
        places = torch.tensor(list(self._layers), device=values.device)
        values[places] = torch.tensor(shares, device=values.device) * self._at_start.float()
        return {"norm.initial_share": values}

    def _share(self, number: int) -> float:
        module = self._layers[number]
        passes = _passes(module) - self._versions[number]
        momentum = module.momentum
        if passes <= 0:
            return float("nan")  # it has not run in train mode, so it was not to learn any
        return 0.0 if momentum is None else max(0.0, 1 - float(momentum)) ** passes  # type: ignore[arg-type]


def _passes(module: nn.Module) -> int:
    counter = module.num_batches_tracked
    assert isinstance(counter, torch.Tensor)
    return version_of(counter)
