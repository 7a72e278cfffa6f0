"""What a probe is, and the hook wrapper that copies and pickles do not carry along."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, Protocol, TypeAlias

import torch

from nndoctor.discovery import ModelIndex

Measured: TypeAlias = torch.Tensor | float | list[float]
"""One signal's values over its targets: a 1-d tensor that may still be on its device, or plain numbers.

A number alone is a signal of the run. NaN marks a target that was not measured."""


class Probe(Protocol):
    """One family of measurements.

    The doctor calls, for every step: ``begin_step`` when the previous step is over; on sampled steps
    ``gradients_ready`` just before an optimizer steps and ``stepped`` just after; then ``collect``.
    A probe that raises is detached and named in the report; it never stops the training.

    None of these methods may wait for the device (no ``.item()``), change autograd state, or draw
    from torch's default generator.
    """

    @property
    def name(self) -> str: ...

    @property
    def tier(self) -> str: ...

    @property
    def signals(self) -> tuple[str, ...]: ...

    def attach(self, index: ModelIndex) -> None: ...

    def begin_step(self, step: int, sampled: bool) -> None: ...

    def gradients_ready(self, optimizer: torch.optim.Optimizer) -> None: ...

    def stepped(self, optimizer: torch.optim.Optimizer) -> None: ...

    def collect(self) -> Mapping[str, Measured]: ...

    def detach(self) -> None: ...


class Hook:
    """A callable to register on a module: copies and pickles of the module get one that does nothing.

    ``copy.deepcopy`` and ``torch.save`` of a model take its hooks along. The stand-in is a bound
    method of the standard library, so that such a file loads where nndoctor is not installed.

    While torch.compile traces the model the hook is not there either: inside a compiled region nothing
    of ours breaks the graph, which ``fullgraph=True`` would make an error of.
    """

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return None
        return self.function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return (getattr, (nullcontext(), "__exit__"))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return nullcontext().__exit__
