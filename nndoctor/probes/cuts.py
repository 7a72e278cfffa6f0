"""Where the graph of the loss is cut: layers that are called, and whose output goes on without its gradient.

While some parameter of an optimizer has not been reached by any loss, the layers of the model are watched in the
forward passes of training steps. A cut leaves one of two traces: a layer with parameters that require gradients
runs with gradients disabled inside a pass that has them enabled, or a layer receives memory that an earlier
layer wrote with a gradient, without that gradient. What a model hands out is remembered until its next pass, so that
a cut between two models (a generator and its critic) is seen as well. No values are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from nndoctor.discovery import ModelIndex, unwrap
from nndoctor.interpose import version_of
from nndoctor.probes.base import Measured
from nndoctor.probes.forward import HookSet, Place, in_backward, is_transformed, places
from nndoctor.probes.ownership import leaves

ENOUGH = 3
"""Steps of its own optimizer after which a parameter that no loss has reached is not merely waiting for its turn."""

LAST_STEP = 50
"""Sampled steps after which nothing is looked for any more: a cut is there from the start."""


def _tensors(value: object, depth: int = 0) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif depth < 3 and isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item, depth + 1)
    elif depth < 3 and isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item, depth + 1)


class CutProbe:
    """Finds layers that are cut off from the loss although they are on the way to it."""

    name = "cuts"
    tier = "graph"
    hooks_layers = True
    signals = ("layer.cut_off", "layer.cut_after", "layer.cut_before")

    def __init__(self) -> None:
        self._index: ModelIndex | None = None
        self._places: tuple[Place, ...] = ()
        self._hooks = HookSet(lambda: None)
        self._reached: set[int] = set()
        self._complete = True
        self._steps = 0
        self._held: dict[int, torch.Tensor] = {}
        self._first_versions: dict[int, int] = {}
        self._turns: dict[int, int] = {}
        self._inside = False
        self._written: dict[int, int] = {}
        self._handed_out: dict[int, dict[int, tuple[int, torch.Tensor]]] = {}
        self._last_left: int | None = None
        self._called: set[int] = set()
        self._cut_after: set[int] = set()
        self._cut_before: set[int] = set()
        self._done = False

    def attach(self, index: ModelIndex) -> None:
        self._index = index
        self._places = tuple(place for place in places(index)[0] if place.layer is not None and place.fused_in is None)

    def detach(self) -> None:
        self._hooks.remove()
        self._index = None
        self._held.clear()
        self._handed_out.clear()

    def begin_step(self, step: int, sampled: bool) -> None:
        self._hooks.remove()
        self._inside = False
        self._written.clear()
        if not sampled or self._done or self._index is None:
            return
        if self._hooks.failure is not None:
            raise self._hooks.failure
        if step > LAST_STEP:
            self._done = True
            self._handed_out.clear()
        elif self._steps and self._waiting():  # the first step tells whether there is anything to look for
            self._hooks = HookSet(lambda: None)
            for place in self._places:
                self._hooks.before(place, self._enters)
                self._hooks.after(place, self._leaves)

    def forward_begins(self, root: object, args: object, kwargs: object) -> None:
        self._inside = True
        self._written.clear()
        self._last_left = None

    def forward_ended(self, root: object, output: object) -> None:
        """Keep the memory of what a model hands out, so that its address cannot come to mean something else."""
        self._inside = False
        if self._last_left is not None:
            self._handed_out[id(root)] = {
                tensor.untyped_storage().data_ptr(): (self._last_left, tensor.detach())
                for tensor in _tensors(output)
                if tensor.requires_grad and tensor.numel()
            }

    def backward_begins(self, loss: object) -> None:
        """Note what this loss reaches, until every parameter was reached once."""
        if self._done or not isinstance(loss, torch.Tensor) or (self._steps and not self._waiting()):
            return
        found = leaves(loss)
        if found is None:
            self._complete = False
        else:
            self._reached |= found.keys()

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        if self._done:
            return
        self._steps += 1
        for group in optimizer.param_groups:
            for param in group["params"]:
                if param.requires_grad and id(param) not in self._reached:
                    self._held[id(param)] = param
                    self._first_versions.setdefault(id(param), version_of(param))
                    self._turns[id(param)] = self._turns.get(id(param), 0) + 1

    def _waiting(self) -> bool:
        return any(key not in self._reached for key in self._held)

    def _enters(self, place: Place, module: nn.Module, args: object) -> None:
        if place.layer is None or not self._inside or in_backward() or is_transformed():
            return
        for tensor in _tensors(args):
            if torch.is_grad_enabled() and not tensor.requires_grad and tensor.is_floating_point():
                pointer = tensor.untyped_storage().data_ptr()
                source = self._written.get(pointer, self._handed_by(pointer))
                if source is not None and source != place.layer:
                    self._cut_after.add(source)
                    self._cut_before.add(place.layer)

    def _handed_by(self, pointer: int) -> int | None:
        return next((outputs[pointer][0] for outputs in self._handed_out.values() if pointer in outputs), None)

    def _leaves(self, place: Place, module: nn.Module, args: object, output: object) -> None:
        if place.layer is None or not self._inside or in_backward() or is_transformed():
            return
        self._called.add(place.layer)
        self._last_left = place.layer
        trains = any(param.requires_grad for param in module.parameters(recurse=False))
        if not torch.is_grad_enabled():
            if trains:
                self._cut_after.add(place.layer)
            return
        for tensor in _tensors(output):
            if tensor.numel():
                pointer = tensor.untyped_storage().data_ptr()
                if tensor.requires_grad:
                    self._written[pointer] = place.layer
                else:
                    self._written.pop(pointer, None)  # the memory of something else by now

    def collect(self) -> Mapping[str, Measured]:
        index = self._index
        if index is None or self._done or not self._complete or not self._steps:
            return {}
        lost = self._lost(index)
        if not lost:
            return {"layer.cut_off": [0.0] * len(index.layers)} if not self._waiting() else {}
        layers = {index.param_layers[index.param_numbers[key]] for key in lost}
        layers &= self._called
        flags = {
            "layer.cut_off": layers,
            "layer.cut_after": {n for n in self._cut_after if n in layers or not _trains(index, n)},
            "layer.cut_before": self._cut_before,
        }
        return {name: [float(n in found) for n in range(len(index.layers))] for name, found in flags.items()}

    def _lost(self, index: ModelIndex) -> set[int]:
        """Parameters that had turns enough, were reached by no loss, and that nobody else writes.

        Whoever copies or averages weights into a network (a teacher, a target) writes them outside of the optimizer.
        """
        lost = {
            key
            for key, param in self._held.items()
            if key not in self._reached
            and key in index.param_numbers
            and self._turns[key] >= ENOUGH
            and version_of(param) == self._first_versions[key]
        }
        return lost - _copies(index, lost, self._reached)


def _trains(index: ModelIndex, layer: int) -> bool:
    module = index.layers[layer]
    return module is not None and any(param.requires_grad for param in module.parameters(recurse=False))


def _copies(index: ModelIndex, lost: set[int], reached: set[int]) -> set[int]:
    """Parameters of networks built like one that the loss does reach: targets that are synchronised later."""
    parts = [part for root in index.roots.values() for part in (unwrap(root), *unwrap(root).children())]
    shapes = {
        (type(part), tuple(tuple(p.shape) for p in part.parameters()))
        for part in parts
        if any(id(p) in reached for p in part.parameters()) and sum(1 for _ in part.parameters()) > 2
    }
    return {
        id(p)
        for part in parts
        if (type(part), tuple(tuple(p.shape) for p in part.parameters())) in shapes
        and all(id(p) in lost for p in part.parameters())
        for p in part.parameters()
    }
