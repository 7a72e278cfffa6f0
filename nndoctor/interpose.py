"""The one place where functions of torch are wrapped, because no hook exists for what they tell.

Seen here: ``backward()`` (the loss, before its graph is gone), gradient clipping (the norm before it),
the gradient scaler (the true loss, skipped steps), ``zero_grad``, schedules, loaded checkpoints, the data
loader's waits and epochs, and which samples make up a batch.
Everything is put back when the last observer leaves; each wrapper calls the original first or last
with the very same arguments, and an observer's failure is handed to the observer, never to the caller.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import BatchSampler, DataLoader


class Observer(Protocol):
    """What a listener may hear, in the thread in which it happens; it has the methods for what it wants to hear."""

    def backward_begins(self, loss: object) -> None: ...

    def backward_ended(self) -> None: ...

    def gradients_zeroed(self, owner: object) -> None: ...

    def clipped(self, total_norm: object, max_norm: object) -> None: ...

    def clipping(self, parameters: object) -> None: ...

    def loss_scaled(self, loss: object, scaled: object) -> None: ...

    def gradients_unscaled(self, scaler: object, optimizer: object) -> None: ...

    def scaler_stepping(self, scaler: object, optimizer: object) -> None: ...

    def scaler_stepped(self, optimizer: object) -> None: ...

    def scaler_refused(self, optimizer: object, call: str) -> None: ...

    def scaler_updated(self, scaler: object) -> None: ...

    def scheduler_stepped(self, scheduler: object) -> None: ...

    def state_loaded(self, module: object, missing: Sequence[str], unexpected: Sequence[str]) -> None: ...

    def part_begins(self, part: str) -> None: ...

    def part_ended(self, part: str) -> None: ...

    def batch_planned(self, sampler: object, indices: Sequence[object]) -> None: ...

    def loader_started(self, loader: object) -> None: ...

    def loader_ended(self, loader: object) -> None: ...

    def batch_loaded(self, loader: object, batch: object, seconds: float) -> None: ...

    def observer_failed(self, event: str, error: Exception) -> None: ...


class Interposer:
    """Wraps torch's functions while at least one observer is there."""

    def __init__(self) -> None:
        self.observers: list[Any] = []
        self._hears: dict[str, tuple[tuple[Any, Callable[..., None]], ...]] = {}
        self.missing: tuple[str, ...] = ()
        self._undo: list[Callable[[], None]] = []
        self._inside = threading.local()
        self._lock = threading.RLock()
        self._loaders: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def add(self, observer: Any) -> None:
        """Let `observer` hear what it has methods for; see :class:`Observer`."""
        with self._lock:
            if not self.observers:
                self._install()
            if observer not in self.observers:
                self.observers.append(observer)
                self._hears = {}

    def remove(self, observer: Any) -> None:
        with self._lock:
            if observer in self.observers:
                self.observers.remove(observer)
                self._hears = {}
                if not self.observers:
                    self._uninstall()

    def _tell(self, event: str, *args: object) -> None:
        hearing = self._hears.get(event)
        if hearing is None:
            found = [(observer, getattr(observer, event, None)) for observer in self.observers]
            hearing = self._hears[event] = tuple((observer, hears) for observer, hears in found if hears is not None)
        for observer, hears in hearing:
            try:
                hears(*args)
            except Exception as error:
                observer.observer_failed(event, error)

    def _install(self) -> None:
        missing: list[str] = []
        clip = torch.nn.utils.clip_grad
        scaler = torch.amp.GradScaler
        iterator = torch.utils.data.dataloader._BaseDataLoaderIter
        for owner, name, wrapper in (
            (torch.autograd, "backward", self._wrap_backward),
            (torch.optim.Optimizer, "zero_grad", self._wrap_zero_grad),
            (torch.nn.Module, "zero_grad", self._wrap_zero_grad),
            # clip_grad_norm_ finds this helper in its module, however the user imported clip_grad_norm_ itself.
            (clip, "_clip_grads_with_norm_", self._wrap_clip),
            (clip, "_get_total_norm", self._wrap_norm),
            (torch, "save", self._wrap_save),
            (scaler, "scale", self._wrap_scale),
            (scaler, "step", self._wrap_scaler_step),
            (scaler, "unscale_", self._wrap_unscale),
            (scaler, "update", self._wrap_scaler_update),
            (torch.nn.Module, "load_state_dict", self._wrap_load_state),
            (BatchSampler, "__iter__", self._wrap_batch_sampler),
            *((kind, "step", self._wrap_scheduler_step) for kind in _with_own_step(LRScheduler)),
            (DataLoader, "__iter__", self._wrap_loader_iter),
            (iterator, "__next__", self._wrap_loader_next),
        ):
            if hasattr(owner, name):
                self._replace(owner, name, wrapper)
            else:
                missing.append(f"{getattr(owner, '__name__', owner)}.{name}")
        self.missing = tuple(missing)

    def _replace(self, owner: Any, name: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        own = name in vars(owner)
        original = getattr(owner, name)
        replacement = functools.wraps(original)(wrapper(original))
        setattr(owner, name, replacement)

        def undo() -> None:
            if getattr(owner, name) is not replacement:
                return  # somebody wrapped it after us; our wrapper stays below theirs and only passes on
            if own:
                setattr(owner, name, original)
            else:
                delattr(owner, name)

        self._undo.append(undo)

    def _uninstall(self) -> None:
        while self._undo:
            self._undo.pop()()

    def _wrap_backward(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            # Reentrant checkpointing calls backward inside backward: only the outermost is the user's.
            if getattr(self._inside, "backward", False) or not self.observers:
                return original(tensors, *args, **kwargs)
            self._inside.backward = True
            try:
                self._tell("backward_begins", tensors)
                result = original(tensors, *args, **kwargs)
                self._tell("backward_ended")
                return result
            finally:
                self._inside.backward = False

        return backward

    def _wrap_zero_grad(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def zero_grad(owner: Any, *args: Any, **kwargs: Any) -> Any:
            self._tell("part_begins", "zero_grad")
            try:
                result = original(owner, *args, **kwargs)
            finally:
                self._tell("part_ended", "zero_grad")
            self._tell("gradients_zeroed", owner)
            return result

        return zero_grad

    def _wrap_clip(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def clip_grads_with_norm(parameters: Any, max_norm: Any, total_norm: Any, *args: Any, **kwargs: Any) -> Any:
            self._tell("clipped", total_norm, max_norm)
            self._tell("clipping", parameters)
            self._tell("part_begins", "clipping")
            try:
                return original(parameters, max_norm, total_norm, *args, **kwargs)
            finally:
                self._tell("part_ended", "clipping")

        return clip_grads_with_norm

    def _wrap_norm(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def get_total_norm(*args: Any, **kwargs: Any) -> Any:
            self._tell("part_begins", "clipping")
            try:
                return original(*args, **kwargs)
            finally:
                self._tell("part_ended", "clipping")

        return get_total_norm

    def _wrap_save(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def save(*args: Any, **kwargs: Any) -> Any:
            self._tell("part_begins", "checkpoint")
            try:
                return original(*args, **kwargs)
            finally:
                self._tell("part_ended", "checkpoint")

        return save

    def _wrap_scale(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def scale(scaler: Any, outputs: Any, *args: Any, **kwargs: Any) -> Any:
            scaled = original(scaler, outputs, *args, **kwargs)
            self._tell("loss_scaled", outputs, scaled)
            return scaled

        return scale

    def _wrap_scaler_step(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def step(scaler: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
            self._tell("scaler_stepping", scaler, optimizer)
            self._tell("part_begins", "scaler")
            try:
                with self._refusals(optimizer, "step"):
                    result = original(scaler, optimizer, *args, **kwargs)
            finally:
                self._tell("part_ended", "scaler")
            self._tell("scaler_stepped", optimizer)
            return result

        return step

    def _wrap_unscale(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def unscale(scaler: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
            self._tell("part_begins", "scaler")
            try:
                with self._refusals(optimizer, "unscale_"):
                    result = original(scaler, optimizer, *args, **kwargs)
            finally:
                self._tell("part_ended", "scaler")
            self._tell("gradients_unscaled", scaler, optimizer)
            return result

        return unscale

    @contextmanager
    def _refusals(self, optimizer: object, call: str) -> Iterator[None]:
        """Tell that the scaler refused a second call in one iteration; the error goes on to the caller."""
        try:
            yield
        except RuntimeError as error:
            if "update()" in str(error) or "after step()" in str(error):
                self._tell("scaler_refused", optimizer, call)
            raise

    def _wrap_scaler_update(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def update(scaler: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(scaler, *args, **kwargs)
            self._tell("scaler_updated", scaler)
            return result

        return update

    def _wrap_scheduler_step(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def step(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
            # Schedules made of schedules step their parts: only the outermost is the user's call.
            if getattr(self._inside, "scheduler", False):
                return original(scheduler, *args, **kwargs)
            self._inside.scheduler = True
            self._tell("part_begins", "scheduler")
            try:
                result = original(scheduler, *args, **kwargs)
            finally:
                self._inside.scheduler = False
                self._tell("part_ended", "scheduler")
            if getattr(scheduler, "last_epoch", 0) != 0:  # 0: the constructor's own call
                self._tell("scheduler_stepped", scheduler)
            return result

        return step

    def _wrap_load_state(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def load_state_dict(module: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(module, *args, **kwargs)
            missing = getattr(result, "missing_keys", None)
            if missing is not None:
                self._tell("state_loaded", module, tuple(missing), tuple(result.unexpected_keys))
            return result

        return load_state_dict

    def _wrap_batch_sampler(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def iterate(sampler: Any) -> Any:
            for indices in original(sampler):
                self._tell("batch_planned", sampler, indices)
                yield indices

        return iterate

    def _wrap_loader_iter(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def iterate(loader: Any) -> Any:
            iterator = original(loader)
            self._tell("loader_started", loader)
            self._loaders[iterator] = loader
            return iterator

        return iterate

    def _wrap_loader_next(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def load(iterator: Any) -> Any:
            begun = perf_counter()
            try:
                batch = original(iterator)
            except StopIteration:
                self._tell("loader_ended", self._loaders.get(iterator))
                raise
            self._tell("batch_loaded", self._loaders.get(iterator), batch, perf_counter() - begun)
            return batch

        return load


def _with_own_step(kind: type[Any]) -> Iterator[type[Any]]:
    """`kind` and every class derived from it so far that brings a ``step`` of its own."""
    if "step" in vars(kind):
        yield kind
    for derived in kind.__subclasses__():
        yield from _with_own_step(derived)


def watch_groups(optimizer: torch.optim.Optimizer, begins: Callable[[int], None]) -> Callable[[], None]:
    """Call ``begins(number)`` whenever ``optimizer.step()`` turns to another of its parameter groups.

    Torch's optimizers call ``_init_group`` of themselves, which has no public name, at the start of each group. Other
    optimizers tell nothing.

    Returns:
        What takes the watch off again.
    """
    original = getattr(optimizer, "_init_group", None)
    if original is None or "_init_group" in vars(optimizer):
        return lambda: None

    def init_group(group: Any, *args: Any, **kwargs: Any) -> Any:
        number = next((i for i, known in enumerate(optimizer.param_groups) if known is group), None)
        if number is not None:
            begins(number)
        return original(group, *args, **kwargs)

    vars(optimizer)["_init_group"] = init_group
    return lambda: vars(optimizer).pop("_init_group", None) and None


def outside_of_compiled_code(hook: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """The same hook for an optimizer whose ``step`` may be compiled: torch.compile then calls it without looking into it.

    Traced, a hook of ours would be taken apart into dozens of graphs, each with guards on the doctor's own state.
    """
    uncompiled = torch.compiler.disable(hook)  # type: ignore[no-untyped-call]

    def called(optimizer: Any, args: Any, kwargs: Any) -> Any:
        return uncompiled(optimizer, args, kwargs) if torch.compiler.is_compiling() else hook(optimizer, args, kwargs)

    return called


class CompilerWatch:
    """Calls ``begins()`` right before torch.compile looks at a piece of code, until ``stop``.

    Hooks that leave then are in no compiled code, so nothing is compiled anew when they come and go. Torch has no public
    name for this; where it lacks the private one, nothing is told.
    """

    def __init__(self, begins: Callable[[], None]) -> None:
        self._begins = begins
        self._handler = getattr(sys.modules.get("torch._dynamo"), "callback_handler", None)
        with suppress(AttributeError):
            self._callbacks.append(self._told)

    @property
    def _callbacks(self) -> list[Any]:
        found: list[Any] = self._handler.start_callbacks  # type: ignore[union-attr]
        return found

    @property
    def watches(self) -> bool:
        """Whether it is told; ``torch.compiler.reset`` forgets it."""
        return self._told in getattr(self._handler, "start_callbacks", ())

    def stop(self) -> None:
        with suppress(AttributeError, ValueError):
            self._callbacks.remove(self._told)

    def _told(self, *args: object) -> None:
        self._begins()


def wrappers_being_called() -> Iterator[torch.nn.Module]:
    """What ``torch.compile(model)`` returned, of the models whose first call is under way in this thread."""
    frame = sys._getframe(1) if hasattr(sys, "_getframe") else None
    while frame is not None:
        called = frame.f_locals.get("self") if frame.f_code.co_name == "__call__" else None
        if isinstance(called, torch.nn.Module) and isinstance(getattr(called, "_orig_mod", None), torch.nn.Module):
            yield called
        frame = frame.f_back


def run_eagerly() -> Callable[[], None] | None:
    """Let code that torch.compile has compiled run uncompiled from now on.

    Returns:
        What puts the former stance of the compiler back; None where that cannot be, in the middle of compiled code.
    """
    try:
        stance = torch.compiler.set_stance("force_eager")
    except (AttributeError, RuntimeError):
        return None
    return lambda: stance.__exit__(None, None, None)


def keep_address(tensor: torch.Tensor) -> None:
    """Tell torch.compile that `tensor` stays where it is: a graph that seems to write to it can still be a CUDA graph."""
    mark = getattr(sys.modules.get("torch._dynamo"), "mark_static_address", None)
    if mark is not None:
        mark(tensor, guard=False)


def hooks_with(handle: Any) -> Sized | None:
    """All hooks that stand where the hook of `handle` is registered, as they come and go; None where this torch does not tell."""
    reference = getattr(handle, "hooks_dict_ref", None)
    hooks: Sized | None = reference() if callable(reference) else None
    return hooks


def hooks_beside(handle: Any) -> int:
    """How many other hooks stand where the hook of `handle` is registered; 1 where this torch does not tell."""
    hooks = hooks_with(handle)
    return 1 if hooks is None else len(hooks) - 1


def version_of(tensor: torch.Tensor) -> int:
    """How often `tensor` was written in place. The one use of this attribute, which has no public name."""
    return tensor._version


PROCESS = Interposer()
"""Functions of torch are one per process, so is their interposer; it holds nothing while no doctor is attached."""
