"""Networks built like the trained one that give its goals: target, momentum and teacher networks, and whether they follow.

Looked for in the first steps among modules that run with gradients disabled; from then on a few of their weights
are compared with what they were. A reference that sees the very input of the trained network (distillation,
preference training) is meant to stand still and is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from nndoctor.discovery import ModelIndex, unwrap
from nndoctor.probes.base import CONTRACT, Hook, Measured
from nndoctor.probes.forward import in_backward, is_transformed
from nndoctor.probes.functional import compiled_frames

LOOKING = 8
"""Steps in which such networks are looked for: they are there from the first loss on."""

LOOKED_AT = 64
"""Elements of the first and of the last parameter that are compared."""


@dataclass
class _Follower:
    """A network that gives goals, and what its weights were when it was first seen."""

    module: ReferenceType[nn.Module]
    trained: ReferenceType[nn.Module]
    shared: bool
    first: torch.Tensor
    seen: int
    other_input: bool = False
    same_input: bool = False


def _shapes(module: nn.Module) -> tuple[object, ...]:
    return (type(module), *(tuple(param.shape) for param in module.parameters()))


@torch.no_grad()
def _look(module: nn.Module) -> torch.Tensor:
    params = list(module.parameters())
    return torch.cat([param.detach().reshape(-1)[:LOOKED_AT].float() for param in (params[0], params[-1])])


class TargetProbe:
    """Follows the networks that give goals to the trained one."""

    name = "targets"
    tier = CONTRACT  # a look costs next to nothing, and one that is late is of no use
    sleeps = True
    hooks_layers = True
    signals = ("target_network.used", "target_network.shared", "target_network.changed", "target_network.steps")

    def __init__(self) -> None:
        self._trained: dict[tuple[object, ...], nn.Module] = {}
        self._inputs: dict[int, ReferenceType[torch.Tensor]] = {}
        self._goals: list[tuple[_Follower, ReferenceType[torch.Tensor]]] = []
        self._followers: dict[int, _Follower] = {}
        self._handle: RemovableHandle | None = None
        self._step = 0

    def attach(self, index: ModelIndex) -> None:
        for root in index.roots.values():
            model = unwrap(root)
            for part in (model, *model.children()):
                trains = [param.requires_grad for param in part.parameters()]
                if len(trains) > 2 and any(trains):
                    self._trained.setdefault(_shapes(part), part)

    def detach(self) -> None:
        self._stop_looking()
        self._trained.clear()
        self._followers.clear()

    def begin_step(self, step: int, sampled: bool) -> None:
        self._step = step
        self._inputs.clear()
        self._goals.clear()
        self._stop_looking()
        # A hook on all modules makes torch.compile warn, so the first step is let pass to see whether anything is compiled.
        if sampled and 1 < step <= LOOKING and self._trained and not compiled_frames():
            self._handle = nn.modules.module.register_module_forward_pre_hook(Hook(self._enters))

    def _stop_looking(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _enters(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Any module's pass begins: remember what trained networks and those built alike are given."""
        given = next((value for value in args if isinstance(value, torch.Tensor)), None)
        if given is None or in_backward() or is_transformed():
            return
        if torch.is_grad_enabled():
            if any(module is trained for trained in self._trained.values()):
                self._inputs[id(module)] = ref(given)
            return
        follower = self._followers.get(id(module)) or self._new(module)
        if follower is not None:
            self._goals.append((follower, ref(given)))

    def _new(self, module: nn.Module) -> _Follower | None:
        trained = self._trained.get(_shapes(module)) if next(module.children(), None) is not None else None
        if trained is None or trained is module:
            return None
        shared = next(module.parameters()) is next(trained.parameters())
        if not shared and any(param.grad is not None for param in module.parameters()):
            return None
        made = _Follower(ref(module), ref(trained), shared, _look(module).clone(), self._step)
        self._followers[id(module)] = made
        return made

    def backward_begins(self, loss: object) -> None:
        """The passes of the loss are over: who was given the same input as the trained network, and who another?"""
        for follower, given in self._goals:
            trained = follower.trained()
            seen = self._inputs.get(id(trained)) if trained is not None else None
            if seen is None:
                continue
            same = given() is not None and given() is seen()
            follower.same_input = follower.same_input or same
            follower.other_input = follower.other_input or not same
        self._goals.clear()

    def collect(self) -> Mapping[str, Measured]:
        found = [f for f in self._followers.values() if f.other_input and not f.same_input and f.module() is not None]
        if not found:
            return {}
        changed = []
        for follower in found:
            module = follower.module()
            if module is not None and not follower.shared:
                changed.append((_look(module) != follower.first).any().float())
        measured: dict[str, Measured] = {
            "target_network.used": float(len(found)),
            "target_network.shared": float(any(f.shared for f in found)),
            "target_network.steps": float(self._step - min(f.seen for f in found)),
        }
        if changed:
            measured["target_network.changed"] = torch.stack(changed).amin()[None]
        return measured
