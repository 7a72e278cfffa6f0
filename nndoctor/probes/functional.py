"""Activation functions that are called as functions (``F.relu(x)``, ``x.tanh()``) and so have no module hook."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

SIGMOID_LIMITS = (0.0, 1.0)
TANH_LIMITS = (-1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Activation:
    """What can go wrong with an activation function: units that are always zero, or always at a limit."""

    name: str
    can_die: bool = False
    limits: tuple[float, float] | None = None
    softmax: bool = False


RELU = Activation("relu", can_die=True)
RELU6 = Activation("relu6", can_die=True)
SIGMOID = Activation("sigmoid", limits=SIGMOID_LIMITS)
HARDSIGMOID = Activation("hardsigmoid", limits=SIGMOID_LIMITS)
TANH = Activation("tanh", limits=TANH_LIMITS)
SOFTMAX = Activation("softmax", softmax=True)

_SMOOTH = ("leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign", "hardswish", "prelu", "glu")


def activation_of(module: nn.Module) -> Activation | None:
    """What kind of activation function a module of ``torch.nn`` is, None if it is none."""
    if isinstance(module, (nn.ReLU, nn.ReLU6)):
        return RELU
    if isinstance(module, nn.Threshold):
        return RELU if module.value == 0 and module.threshold >= 0 else Activation("threshold")
    if isinstance(module, nn.Sigmoid):
        return SIGMOID
    if isinstance(module, nn.Hardsigmoid):
        return HARDSIGMOID
    if isinstance(module, nn.Tanh):
        return TANH
    if isinstance(module, nn.Hardtanh):
        return Activation("hardtanh", limits=(float(module.min_val), float(module.max_val)))
    if isinstance(module, (nn.Softmax, nn.Softmax2d)):
        return SOFTMAX
    built_in = any(base.__module__ == "torch.nn.modules.activation" for base in type(module).__mro__)
    return Activation(type(module).__name__) if built_in and not isinstance(module, nn.MultiheadAttention) else None


def softmax_dimension(dims: int, given: object) -> int:
    """The dimension a softmax runs along, with torch's own choice where none was given."""
    if isinstance(given, int):
        return given
    return 0 if dims in (0, 1, 3) else 1


def watched_functions() -> dict[int, Activation]:
    """Every spelling of an activation function by the id of the function; the functions live as long as torch."""
    spellings: list[tuple[Activation, Iterable[tuple[object, str]]]] = [
        (RELU, [(F, "relu"), (F, "relu_"), (torch, "relu"), (torch, "relu_"), (torch.Tensor, "relu"), (torch.Tensor, "relu_")]),
        (RELU6, [(F, "relu6")]),
        (SIGMOID, [(F, "sigmoid"), *_everywhere("sigmoid"), (torch.special, "expit")]),
        (HARDSIGMOID, [(F, "hardsigmoid")]),
        (TANH, [(F, "tanh"), *_everywhere("tanh")]),
        (Activation("hardtanh"), [(F, "hardtanh"), (F, "hardtanh_")]),
        (SOFTMAX, [(F, "softmax"), (torch, "softmax"), (torch.Tensor, "softmax"), (torch.special, "softmax")]),
        *((Activation(name), [(F, name), (F, name + "_"), (torch, name)]) for name in _SMOOTH),
    ]
    return {
        id(getattr(owner, name)): activation
        for activation, places in spellings
        for owner, name in places
        if hasattr(owner, name)
    }


def _everywhere(name: str) -> list[tuple[object, str]]:
    return [(torch, name), (torch, name + "_"), (torch.Tensor, name), (torch.Tensor, name + "_")]


class FunctionMode(TorchFunctionMode):
    """While entered, tells about every call of certain functions of torch, after it has run.

    Calls are passed on untouched; what torch's Python functions call inside themselves is not seen
    twice, because a mode is not active inside the function that it handles.

    Args:
        watched: what to tell of a call, by the id of the function.
        seen: called with that, the call's result and its arguments.
    """

    def __init__(
        self, watched: Mapping[int, Any], seen: Callable[[Any, object, tuple[Any, ...], Mapping[str, Any]], None]
    ) -> None:
        super().__init__()
        self._seen = seen
        self._watched = watched
        self._entered = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **kwargs) if kwargs else func(*args)
        told = self._watched.get(id(func))
        if told is not None:
            with torch._C.DisableTorchFunction():
                self._seen(told, result, args, kwargs or {})
        return result

    def enter(self) -> None:
        """Begin to listen, unless already listening."""
        if not self._entered:
            self._entered = True
            self.__enter__()  # type: ignore[no-untyped-call]

    def leave(self) -> None:
        """Stop listening, whatever has happened in between, such as an interrupt in the middle of a pass."""
        if self._entered:
            self._entered = False
            self._exit_own()

    def _exit_own(self) -> None:
        """Exit this very mode: ``__exit__`` pops whichever is on top, and code inside may have left its own there."""
        if not any(mode is self for mode in active_modes()):
            return
        above: list[Any] = []
        while (top := torch.overrides._get_current_function_mode()) is not self:  # type: ignore[no-untyped-call]
            above.append(top)
            torch.overrides._pop_mode()  # type: ignore[no-untyped-call]
        self.__exit__(None, None, None)
        for mode in reversed(above):
            torch.overrides._push_mode(mode)  # type: ignore[no-untyped-call]


def active_modes() -> list[Any]:
    """The torch function modes that are in force in this thread, the innermost last."""
    return list(torch.overrides._get_current_function_mode_stack())  # type: ignore[no-untyped-call]


class FunctionalActivations(FunctionMode):
    """Tells about every activation function that is called, with its :class:`Activation`."""

    def __init__(self, seen: Callable[[Activation, object, tuple[Any, ...], Mapping[str, Any]], None]) -> None:
        super().__init__(watched_functions(), seen)


def compiler_has_run() -> bool:
    """Whether this process compiles with dynamo: it guards on active modes, so entering one would recompile."""
    return compiled_frames() > 0


def compiled_graphs() -> int:
    """How many graphs dynamo has compiled in this process, 0 where it does not tell."""
    counters = getattr(sys.modules.get("torch._dynamo.utils"), "counters", None) or {}
    return int(counters.get("stats", {}).get("unique_graphs", 0))


def compiled_frames() -> int:
    """How many pieces of code dynamo has compiled in this process, 0 where it does not tell."""
    counters = getattr(sys.modules.get("torch._dynamo.utils"), "counters", None) or {}
    # With fullgraph=True only the second one counts.
    return int(counters.get("frames", {}).get("total", 0)) + int(counters.get("stats", {}).get("unique_graphs", 0))
