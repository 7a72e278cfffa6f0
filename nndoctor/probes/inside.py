"""Measures activations inside of compiled code, where hooks do not run: an operator in the graph hands them over.

Hooks that are there when torch.compile traces a model leave a call of the operator behind each layer. The compiler takes
it for a black box, so nothing of the doctor is traced. On steps that are not sampled the call returns at once; on the
others it copies the same samples into the same buffers as the hooks of an eager model do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import count
from threading import get_ident
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import nn

from nndoctor.discovery import ModelIndex, unwrap
from nndoctor.interpose import keep_address
from nndoctor.probes.activations import ActivationProbe, Step
from nndoctor.probes.base import Hook
from nndoctor.probes.forward import HookSet, in_backward, is_compiled

RECEIVERS: WeakValueDictionary[int, InsideActivationProbe] = WeakValueDictionary()
"""Who gets what the operator is given. Operators are one per process, so are their receivers."""

is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: False)
"""Whether torch.export traces: what is exported must run where nndoctor is not."""

NUMBERS = count()
"""Of receivers; none is given twice, since a graph outlives the doctor whose number is in it."""


@cache
def operator() -> torch.library.Library:
    """Define ``nndoctor::look(seen, sink, receiver, layer)``, which hands over what a layer put out.

    It claims to write to `sink`: else it would have no effect and be left out of the graph. Its tags let the compiler
    choose how `seen` lies in memory, and keep it out of CUDA graphs, in which no Python runs.
    """
    library = torch.library.Library("nndoctor", "FRAGMENT")  # type: ignore[no-untyped-call]
    known = (getattr(torch.Tag, name, None) for name in ("flexible_layout", "cudagraph_unsafe"))
    tags = tuple(tag for tag in known if tag is not None)
    library.define("look(Tensor seen, Tensor(a!) sink, int receiver, int layer) -> ()", tags=tags)  # type: ignore[no-untyped-call]
    library.impl("look", hand_over, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake("nndoctor::look", _nothing_to_trace, lib=library)
    return library


def hand_over(seen: torch.Tensor, sink: torch.Tensor, receiver: int, layer: int) -> None:
    """Give what a layer put out to its receiver, if that still listens."""
    probe = RECEIVERS.get(receiver)
    if probe is not None and probe.listens:
        probe.receive(layer, seen)


def _nothing_to_trace(seen: torch.Tensor, sink: torch.Tensor, receiver: int, layer: int) -> None:
    """What the operator does to fake tensors."""


class LookHook(Hook):
    """After a layer: in compiled code a call of the operator, elsewhere a call of `function`."""

    __slots__ = ("layer", "receiver", "sink")

    def __init__(self, function: Callable[..., None], sink: torch.Tensor, receiver: int, layer: int) -> None:
        super().__init__(function)
        self.sink, self.receiver, self.layer = sink, receiver, layer

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if not torch.compiler.is_compiling():
            self.function(self.layer, output)
        elif torch.is_grad_enabled() and not is_exporting():  # known while tracing: graphs for evaluations have no such calls
            seen = traced_tensor(output)
            if seen is not None:
                torch.ops.nndoctor.look(seen.detach(), self.sink, self.receiver, self.layer)


def traced_tensor(output: Any) -> torch.Tensor | None:
    """The first real tensor in a layer's output, found by what torch.compile can trace."""
    while isinstance(output, (tuple, list)) and len(output) > 0:
        output = output[0]
    return output if isinstance(output, torch.Tensor) and output.is_floating_point() else None


class InsideActivationProbe(ActivationProbe):
    """The statistics of layers' outputs as of an eager model; when the model gets compiled, of what the operator hands over.

    Functions such as ``F.relu`` are not layers, and are not seen in compiled code.
    """

    hooks_layers = False

    def __init__(self) -> None:
        super().__init__()
        self.listens = False
        self._inside = False
        self._heard = 0
        self._repeated = 0
        self._number = next(NUMBERS)
        self._look_handles: dict[int, Any] = {}

    def attach(self, index: ModelIndex) -> None:
        super().attach(index)
        operator()
        RECEIVERS[self._number] = self
        device = next((param.device for param in index.params), torch.device("cpu"))
        sink = torch.zeros(1, device=device)
        keep_address(sink)
        alike = self._in_repeated_parts(index)
        for place in self._places:
            # Hooks inside of encoder layers would keep these from their fused path in evaluation.
            if place.layer is not None and place.fused_in is None and id(place.module) not in alike:
                hook = LookHook(self._called_eagerly, sink, self._number, place.layer)
                self._look_handles[id(place.module)] = place.module.register_forward_hook(hook)

    def detach(self) -> None:
        RECEIVERS.pop(self._number, None)
        for handle in self._look_handles.values():
            handle.remove()
        self._look_handles.clear()
        super().detach()

    def leave_layers(self) -> None:
        """The model gets compiled: from now on it is the operator that tells."""
        if self._inside or self._index is None:
            return
        listened = bool(self._hooks)
        self._end_step()
        self._inside = True
        for module in self._in_repeated_parts(self._index):
            if module in self._look_handles:
                self._look_handles.pop(module).remove()
        if listened:
            self._install()

    def receive(self, layer: int, seen: torch.Tensor) -> None:
        """Measure what `layer` put out on a step that is sampled."""
        hooks = self._hooks
        if self._index is None or hooks.failure is not None or get_ident() != hooks.thread or in_backward():
            return
        self._root_seen = True
        self._heard += 1
        module = self._index.layers[layer]
        if module is not None:
            with torch.enable_grad():  # as where the layer was called; compiled code runs without
                hooks.call(self._layer_output, layer, module, seen)

    def unseen(self) -> tuple[str, ...]:
        notes = list(super().unseen())
        if self._repeated:
            notes.append(
                f"{self._repeated} parts of the model that are alike were compiled one by one: activations inside are not "
                "measured, or each of them would need code of its own"
            )
        elif self._inside and not self._heard:
            notes.append(
                "no activations were measured inside of compiled code: it was compiled before nndoctor.wrap was called, or "
                "hooks on modules are no part of it; wrap the model before its first call"
            )
        return tuple(notes)

    def _install(self) -> None:
        if self._inside:
            self._hooks = HookSet(self._mode.leave)
            self.listens = True
        else:
            super()._install()

    def _end_step(self) -> None:
        self.listens = False
        super()._end_step()
        if self._inside:
            self._samples.clear()
            self._units.forget_step()
            self._step = Step()

    def _called_eagerly(self, layer: int, output: object) -> None:
        """A layer of a compiled model was called outside of compiled code."""
        if self.listens and self._in_training() and self._index is not None:
            module = self._index.layers[layer]
            if module is not None:
                self._heard += 1
                self._hooks.call(self._layer_output, layer, module, output)

    def _in_repeated_parts(self, index: ModelIndex) -> set[int]:
        """Modules inside of parts that were compiled one by one and are built alike: they share code, but not hooks."""
        roots = {id(unwrap(root)) for root in index.roots.values()}
        parts = [m for root in index.roots.values() for m in root.modules() if is_compiled(m) and id(unwrap(m)) not in roots]
        kinds = Counter(type(unwrap(part)) for part in parts)
        repeated = [part for part in parts if kinds[type(unwrap(part))] > 1]
        self._repeated = len(repeated)
        return {id(module) for part in repeated for module in part.modules()}
