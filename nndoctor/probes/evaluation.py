"""Whether the model is evaluated in train mode: dropout active, batch statistics in use, on data it does not train on.

What makes a pass an evaluation is its contract: no gradients, batches of another DataLoader than the one
that trains, one after the other without a step of the optimizer between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import nn

from nndoctor.discovery import DROPOUTS, NORMALISATIONS, ModelIndex
from nndoctor.interpose import version_of
from nndoctor.probes.base import CONTRACT, Measured

ENOUGH = 2
"""Batches in a row: a training step may take one pass without gradients for pseudo-labels, an evaluation takes several."""


def depends_on_mode(module: nn.Module) -> bool:
    """Whether `module` is in train mode and computes something else there than in evaluation mode."""
    if not module.training:
        return False
    if isinstance(module, DROPOUTS):
        return float(getattr(module, "p", 0.0)) > 0
    if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
        return float(module.dropout) > 0
    return isinstance(module, NORMALISATIONS) and bool(getattr(module, "track_running_stats", False))


class EvaluationProbe:
    """Notices evaluations that run in train mode, and which layers that matters to."""

    name = "evaluation"
    tier = CONTRACT
    sleeps = True
    signals = ("eval.train_mode_batches", "layer.train_in_eval")

    def __init__(self) -> None:
        self.news = False
        self._index: ModelIndex | None = None
        self._loader: int | None = None
        self._training: set[int] = set()
        self._weights: torch.Tensor | None = None
        self._version = -1
        self._row = 0
        self._last: ReferenceType[torch.Tensor] | None = None
        self._sampling = False
        self._most = 0
        self._layers: list[float] = []

    def attach(self, index: ModelIndex) -> None:
        self._index = index
        self._weights = next((param for param in index.params if param.requires_grad), None)

    def detach(self) -> None:
        self._index = self._weights = self._last = None

    def begin_step(self, step: int, sampled: bool) -> None:
        """What was seen of evaluations stays until it is told."""

    def loader_started(self, loader: object) -> None:
        self._loader = id(loader)
        self._row = 0

    def batch_loaded(self, loader: object, batch: object, training: bool) -> None:
        self._loader = id(loader)

    def backward_begins(self, loss: object) -> None:
        """The loader in use is one that trains."""
        if self._loader is not None:
            self._training.add(self._loader)
        self._row = 0

    def evaluation_begins(self, root: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Count passes in a row over batches of a loader that does not train."""
        if self._index is None or self._weights is None or not self._training or self._sampling:
            return
        version = version_of(self._weights)
        if version != self._version:  # a step lies in between: passes of two steps are no evaluation
            self._version, self._row = version, 0
        given = next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)
        if given is not None and self._last is not None and self._last() is given:
            self._sampling = True  # the same batch again and again is Monte Carlo dropout, on purpose
            self._most, self._layers = 0, []
            return
        self._last = ref(given) if given is not None else None
        if not root.training or self._loader is None or self._loader in self._training or _recalibrates(root):
            return
        self._row += 1
        if self._row >= ENOUGH and self._row > self._most:
            self._most = self._row
            if self._row == ENOUGH:
                self._layers = self._affected(root)
                self.news = bool(any(self._layers))

    def _affected(self, root: nn.Module) -> list[float]:
        index = self._index
        assert index is not None
        inside = {id(module) for module in root.modules()}
        return [
            float(module is not None and id(module) in inside and depends_on_mode(module) and index.serves_trainable(name))
            for name, module in zip(index.layer_names, index.layers, strict=True)
        ]

    def collect(self) -> Mapping[str, Measured]:
        self.news = False
        if not self._training:
            return {}
        affected = any(self._layers)
        measured: dict[str, Measured] = {"eval.train_mode_batches": float(self._most) if affected else 0.0}
        if affected:
            measured["layer.train_in_eval"] = self._layers
        return measured


def _recalibrates(root: nn.Module) -> bool:
    """Whether batch normalisation is being fitted anew, by cumulative averages as ``update_bn`` does."""
    return any(isinstance(m, nn.modules.batchnorm._NormBase) and m.track_running_stats and m.momentum is None for m in root.modules())
