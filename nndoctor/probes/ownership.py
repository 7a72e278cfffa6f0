"""Whose tensors are trained: what the loss reaches, what the model owns and what the optimizer holds, by identity.

Compares three sets of tensors in the first steps, and again whenever the model's own parameters have
changed identity. No values are read and there is no threshold: a tensor is the model's, or it is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from nndoctor.discovery import ModelIndex, clean_name, unwrap
from nndoctor.probes.base import Measured

WALKS = 5
"""Losses whose graphs are walked after the start and after each change of the model's parameters."""

LARGEST_WALK = 200_000
"""Nodes after which a walk gives up: the graph then tells nothing, rather than something wrong."""

DEEPEST = 4
"""Containers inside containers that are searched for modules nobody registered."""

MOST_HIDDEN = 64
"""Unregistered modules that get a name of their own; more of them say nothing new."""


def leaves(loss: torch.Tensor) -> dict[int, torch.Tensor] | None:
    """The leaf tensors that get a gradient from `loss`, by ``id``; None if the graph is too large to walk."""
    found: dict[int, torch.Tensor] = {}
    seen: set[Any] = set()
    stack: list[Any] = [loss.grad_fn] if loss.grad_fn is not None else []
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if len(seen) > LARGEST_WALK:
            return None
        variable = getattr(node, "variable", None)
        if isinstance(variable, torch.Tensor):
            found[id(variable)] = variable
        stack.extend(child for child, _ in node.next_functions if child is not None and child not in seen)
    return found


def hidden_modules(root: nn.Module) -> Iterator[tuple[str, str, list[torch.Tensor]]]:
    """What modules of `root` keep in plain lists, dicts and attributes: (name, kind, its leaf tensors)."""
    registered = {id(module) for module in root.modules()} | {id(p) for p in root.parameters()}
    registered |= {id(buffer) for buffer in root.buffers()}
    internal = frozenset(vars(nn.Module()))
    for owner_name, owner in root.named_modules():
        for key, value in vars(owner).items():
            if key not in internal:
                name = ".".join(part for part in (clean_name(owner_name), key) if part)
                yield from _inside(value, name, registered, DEEPEST)


def _inside(value: object, name: str, registered: set[int], depth: int) -> Iterator[tuple[str, str, list[torch.Tensor]]]:
    if isinstance(value, (nn.Module, torch.Tensor)):
        own = list(value.parameters()) if isinstance(value, nn.Module) else [value]
        found = [tensor for tensor in own if tensor.requires_grad and id(tensor) not in registered]
        if id(value) not in registered and found:
            registered.add(id(value))
            yield name, type(value).__name__, found
    elif depth and isinstance(value, Mapping):
        for key, item in value.items():
            yield from _inside(item, f"{name}[{key!r}]", registered, depth - 1)
    elif depth and isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _inside(item, f"{name}[{number}]", registered, depth - 1)


def _held(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]


class OwnershipProbe:
    """Finds optimizers that hold tensors the model no longer uses, and modules that nobody registered."""

    name = "ownership"
    tier = "graph"
    signals = ("optimizer.tensors", "optimizer.stale_tensors", "param.replaced", "layer.unregistered", "layer.unregistered_held")

    def __init__(self) -> None:
        self._index: ModelIndex | None = None
        self._optimizers: dict[int, torch.optim.Optimizer] = {}
        self._steps = 0
        self._owned: tuple[int, ...] = ()
        self._walks = 0
        self._complete = True
        self._reached: dict[int, torch.Tensor] = {}
        self._hidden: dict[str, tuple[int, list[torch.Tensor]]] = {}

    def attach(self, index: ModelIndex) -> None:
        self._index = index

    def detach(self) -> None:
        self._index = None
        self._optimizers.clear()
        self._reached.clear()
        self._hidden.clear()

    def begin_step(self, step: int, sampled: bool) -> None:
        """Nothing is kept from one step to the next but what was found."""

    def backward_begins(self, loss: object) -> None:
        """Walk the graph, if the tensors of this model are not known well enough yet."""
        if self._index is None or not isinstance(loss, torch.Tensor):
            return
        owned = tuple(id(param) for root in self._index.roots.values() for param in root.parameters())
        if owned != self._owned:
            self._owned, self._walks, self._complete, self._reached = owned, 0, True, {}
            self._steps = 0
        if self._walks >= WALKS:
            return
        self._walks += 1
        found = leaves(loss)
        if found is None:
            self._complete = False
        else:
            self._reached.update(found)

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizers[id(optimizer)] = optimizer
        self._steps += 1

    def collect(self) -> Mapping[str, Measured]:
        index = self._index
        if index is None or not self._optimizers or not self._reached or not self._complete:
            return {}
        held = {id(tensor): tensor for optimizer in self._optimizers.values() for tensor in _held(optimizer)}
        owned = set(self._owned)
        if self._walks <= WALKS:
            self._find_hidden(index, owned)
        at_home = {id(tensor) for _, tensors in self._hidden.values() for tensor in tensors}
        measured: dict[str, Measured] = {
            "optimizer.tensors": float(len(held)),
            "optimizer.stale_tensors": float(self._stale(held, owned, at_home)),
            "param.replaced": [float(id(param) not in owned) for param in index.params],
        }
        if self._hidden:
            hidden, kept = [0.0] * len(index.layers), [0.0] * len(index.layers)
            for number, tensors in self._hidden.values():
                hidden[number] = 1.0
                kept[number] = float(all(id(tensor) in held for tensor in tensors))
            measured["layer.unregistered"], measured["layer.unregistered_held"] = hidden, kept
        return measured

    def _stale(self, held: Mapping[int, torch.Tensor], owned: set[int], at_home: set[int]) -> int:
        """Tensors of the optimizers that nothing uses, while what the loss reaches has no optimizer.

        Unused alone is no fault: an optimizer may serve a network whose turn has not come. A tensor is stale when
        the model does not own it either, or when the loss trains another model altogether.
        """
        unheld = [
            tensor
            for key, tensor in self._reached.items()
            if key not in held and key not in at_home and (key in owned or isinstance(tensor, nn.Parameter))
        ]
        if not unheld or self._steps < 2:
            return 0
        elsewhere = not any(key in owned or key in at_home for key in self._reached)
        return sum(key not in self._reached and (elsewhere or key not in owned) for key in held)

    def _find_hidden(self, index: ModelIndex, owned: set[int]) -> None:
        """Look for the homes of the tensors that the loss reaches and no module owns."""
        homeless = {key for key in self._reached if key not in owned}
        homeless -= {id(tensor) for _, tensors in self._hidden.values() for tensor in tensors}
        if not homeless or len(self._hidden) >= MOST_HIDDEN:
            return
        for key, root in index.roots.items():
            for name, kind, tensors in hidden_modules(unwrap(root)):
                found = [tensor for tensor in tensors if id(tensor) in homeless]
                full_name = ".".join(part for part in (key, name) if part)
                if found and full_name not in self._hidden and len(self._hidden) < MOST_HIDDEN:
                    self._hidden[full_name] = (index.unregistered_layer(full_name, kind), found)
