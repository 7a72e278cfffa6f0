"""Which modules of a model can be watched in a forward pass, and which passes belong to training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import torch
from torch import nn

from nndoctor.discovery import ModelIndex, clean_name, unwrap
from nndoctor.probes.base import Hook

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
NEVER_CALLED = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)

# Not public, hence looked up here only; a torch without them has nothing to tell.
graph_task: Callable[[], int] = getattr(torch._C, "_current_graph_task_id", lambda: -1)
current_transform: Callable[[], Any] = getattr(torch._C._functorch, "peek_interpreter_stack", lambda: None)


@dataclass(frozen=True, eq=False, slots=True)
class Place:
    """One module of a run: what it is called, its layer number if it is a layer, whether it is a whole model."""

    name: str
    module: nn.Module
    layer: int | None
    root: bool
    fused_in: nn.Module | None
    """The TransformerEncoderLayer it is in or is itself: hooks keep that from its fused path in evaluation."""

    @property
    def may_fuse(self) -> bool:
        """Whether the module has a fused path for evaluation, which hooks inside or an active mode disable."""
        return isinstance(self.module, (nn.TransformerEncoderLayer, nn.MultiheadAttention))


def places(index: ModelIndex) -> tuple[tuple[Place, ...], tuple[str, ...]]:
    """Every module whose forward pass hooks can see, each once, and a sentence about each that they cannot."""
    found: dict[int, Place] = {}
    hidden: list[str] = []
    for key, model in index.roots.items():
        root = unwrap(model)
        for raw_name, module, fused_in in _visible(model, "", hidden, index.looks_inside_compiled):
            if isinstance(module, WRAPPERS) or type(module) in NEVER_CALLED:
                continue
            name = ".".join(part for part in (key, "" if module is root else clean_name(raw_name)) if part)
            layer = index.layer_numbers.get(id(module))
            found.setdefault(id(module), Place(name, module, layer, module is root, fused_in))
    return tuple(found.values()), tuple(hidden)


def _visible(
    module: nn.Module, name: str, hidden: list[str], compiled_too: bool, fused_in: nn.Module | None = None
) -> Iterator[tuple[str, nn.Module, nn.Module | None]]:
    """`module` and everything inside that runs as Python code, with the fused layer it is part of."""
    if isinstance(module, torch.jit.ScriptModule):
        hidden.append(f"{name or 'the model'} is a TorchScript module: what is inside it is not measured")
        return
    if is_compiled(module) and compiled_too:
        module = unwrap(module)
    elif is_compiled(module):
        hidden.append(f"{name or 'the model'} is compiled: activations and layer times are not measured")
        return
    if isinstance(module, nn.TransformerEncoderLayer):
        fused_in = module
    yield name, module, fused_in
    for child_name, child in module.named_children():
        yield from _visible(child, f"{name}.{child_name}" if name else child_name, hidden, compiled_too, fused_in)


def is_compiled(module: nn.Module) -> bool:
    """Whether `module` is what torch.compile returned, or was compiled in place."""
    inner = getattr(module, "_orig_mod", None)
    return isinstance(inner, nn.Module) or getattr(module, "_compiled_call_impl", None) is not None


def fuses_now(module: nn.Module) -> bool:
    """Whether an encoder layer or attention would take its fused path now, were there no hooks on it."""
    if module.training:
        return False
    return not torch.is_grad_enabled() or not any(param.requires_grad for param in module.parameters())


def in_backward() -> bool:
    """Whether autograd is running a backward pass in this thread: a checkpointed forward is repeated there."""
    return graph_task() != -1


def is_transformed() -> bool:
    """Whether this code is being traced, compiled or mapped (vmap), so that tensors hold no values to read."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None or current_transform() is not None


class HookSet:
    """Forward hooks that are there for one step and gone after it.

    An error in a hook does not reach the training: it is kept in ``failure``, `failed` is called, later
    hooks do nothing.
    """

    def __init__(self, failed: Callable[[], None]) -> None:
        self.failure: Exception | None = None
        self._failed = failed
        self.thread = get_ident()
        self._handles: list[Any] = []

    def before(self, place: Place, function: Callable[..., None], keywords: bool = False) -> None:
        """Call ``function(place, module, arguments)`` before the module's forward, with `keywords` also these."""
        hook = Hook(self._guarded(place, function))
        self._handles.append(place.module.register_forward_pre_hook(hook, with_kwargs=keywords))

    def after(self, place: Place, function: Callable[..., None], always: bool = False, first: bool = False) -> None:
        """Call ``function(place, module, arguments, output)`` after it; with `always` also when it raised.

        With `first` before all hooks that the module has already.
        """
        hook = Hook(self._guarded(place, function))
        self._handles.append(place.module.register_forward_hook(hook, always_call=always, prepend=first))

    def keep(self, handle: Any) -> None:
        """Remove a hook that was registered elsewhere together with the others."""
        self._handles.append(handle)

    @property
    def serves_this_thread(self) -> bool:
        return self.thread == get_ident()

    def call(self, function: Callable[..., None], *args: Any) -> None:
        if self.failure is None and get_ident() == self.thread:
            try:
                function(*args)
            except Exception as error:
                self.fail(error)

    def _guarded(self, place: Place, function: Callable[..., None]) -> Callable[..., None]:
        def guarded(module: nn.Module, *args: Any) -> None:
            # other threads: those of DataParallel are left out, the backward pass on an accelerator is not
            # a hook that was taken off while its module was being called is called once more
            if self.failure is None and self._handles and (get_ident() == self.thread or in_backward()):
                try:
                    function(place, module, *args)
                except Exception as error:
                    self.fail(error)

        return guarded

    def fail(self, error: Exception) -> None:
        """Note what went wrong in a hook: later hooks do nothing."""
        self.failure = error
        self._failed()

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __bool__(self) -> bool:
        return bool(self._handles)


def follow_fused_paths(
    found: tuple[Place, ...], hooks: HookSet, training: bool, install: Callable[[Place, HookSet], None]
) -> bool:
    """Keep hooks inside encoder layers only for passes in which these would not take their fused path anyway.

    Called when a model begins a pass, so that an evaluation on a sampled step computes what it always does.

    Returns:
        Whether some module takes a fused path in this pass.
    """
    fusing = any(fuses_now(place.module) for place in found if place.may_fuse)
    if fusing or not training:
        hooks.remove()
    elif not hooks:
        for place in found:
            if place.fused_in is not None:
                install(place, hooks)
    return fusing
