"""What a probe is, and the hook wrapper that copies and pickles do not carry along."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from typing import Any, Protocol, TypeAlias

import torch

from nndoctor.discovery import ModelIndex

Measured: TypeAlias = torch.Tensor | float | list[float]
"""One signal's values over its targets: a 1-d tensor that may still be on its device, or plain numbers.

A number alone is a signal of the run. NaN marks a target that was not measured."""


CONTRACT = "contract"
"""Tier of the probes that hear every event of every step: they read no values and cost microseconds."""

EVENTS: Mapping[str, str] = {
    "forward_begins": "(root, args, kwargs) a whole model's forward pass begins, gradients enabled",
    "forward_ended": "(root, output) and is over",
    "evaluation_begins": "(root, args, kwargs) a whole model's forward pass begins, gradients disabled",
    "evaluation_ended": "(root, output) and is over",
    "backward_begins": "(loss) backward() of a scalar tensor is about to run",
    "loss_read": "(loss, value) what that loss was before a scaler multiplied it: a number, on an accelerator a copy that stays there",
    "backward_ended": "() and is over",
    "gradients_zeroed": "(owner) zero_grad of an optimizer or module ran",
    "clipped": "(total_norm, max_norm) clip_grad_norm_ is about to scale the gradients",
    "clipping": "(parameters) whose gradients clip_grad_norm_ is about to scale; right after clipped",
    "loss_scaled": "(loss, scaled) a gradient scaler multiplied a loss",
    "gradients_unscaled": "(scaler, optimizer) scaler.unscale_(optimizer) ran",
    "scaler_stepping": "(scaler, optimizer) scaler.step(optimizer) is about to run",
    "scaler_refused": "(optimizer, call) step or unscale_ of a scaler raised: it had been called already in this iteration",
    "scaler_stepped": "(optimizer) scaler.step(optimizer) is over, whether or not the optimizer stepped",
    "scaler_updated": "(scaler) scaler.update() ran",
    "scheduler_stepped": "(scheduler) a learning rate schedule was advanced",
    "state_loaded": "(module, missing, unexpected) load_state_dict ran; the names that did not match",
    "loader_started": "(loader) a DataLoader began an epoch",
    "loader_ended": "(loader) and has no more batches",
    "batch_planned": "(sampler, indices) the samples of a batch to come",
    "batch_waited": "(seconds, training) the loop waited so long for a batch; right before batch_loaded",
    "batch_loaded": "(loader, batch, training) a batch arrived; training: it came from the training loader",
    "part_begins": "(part) something of the loop that is neither forward, backward nor update begins: see PARTS",
    "part_ended": "(part) and is over",
    "gradients_ready": "(optimizer) an optimizer is about to step",
    "stepped": "(optimizer) and has stepped",
    "step_ends": "(step) all optimizers have: what is collected next belongs to that step; told twice where there is news",
}
"""What a probe may hear: it defines a method of that name with these arguments."""

PARTS = ("zero_grad", "clipping", "scheduler", "scaler", "checkpoint")
"""Parts of the loop that ``part_begins`` tells of; a checkpoint is a call of ``torch.save``."""

FREQUENT = frozenset(EVENTS) - {"evaluation_begins", "evaluation_ended", "state_loaded", "loader_started", "loader_ended"}
"""What happens on every step. Forward passes are only told on sampled steps and where an evaluation may begin."""


def sleeps(probe: Probe, event: str) -> bool:
    """Whether a contract probe can do without `event` on steps on which nothing is sampled."""
    through: bool | Collection[str] = getattr(probe, "sleeps", False)
    return event in FREQUENT and (through is True or (through is not False and event in through))


class Probe(Protocol):
    """One family of measurements.

    The doctor calls ``begin_step`` when the previous step is over, on steps that are sampled or follow a
    sampled one; then whatever of ``EVENTS`` the probe has a method for; then ``collect``. It does so on the
    steps on which the probe's tier is sampled. Probes of the tier ``CONTRACT`` hear their events on every
    step; they are asked on sampled steps, and on others as soon as their attribute ``news`` is true.

    Optional: ``sleeps = True`` on a contract probe to which whole sampled steps are enough: it hears nothing
    frequent in between, which is what short steps can afford (or the names of the events that it sleeps
    through); ``facts()``, what the probe knows of the run for people to read; ``hooks_layers = True`` where it
    has hooks inside of the model, so that it leaves when the model is compiled, or ``leave_layers()``, which takes
    them off while the rest of the probe stays, with ``return_to_layers()`` for steps on which the model runs eagerly.

    A probe that raises is detached and named in the report; it never stops the training. None of these
    methods may wait for the device (no ``.item()``), change autograd state, or draw from torch's default
    generator.
    """

    @property
    def name(self) -> str: ...

    @property
    def tier(self) -> str: ...

    @property
    def signals(self) -> tuple[str, ...]: ...

    def attach(self, index: ModelIndex) -> None: ...

    def begin_step(self, step: int, sampled: bool) -> None: ...

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


@functools.cache
def hooks_beside_compiled_code() -> type[Hook]:
    """The class of hooks for modules whose ``forward`` is compiled while the call around it, hooks included, is not.

    torch.compile looks at every function that is called there; these it lets run as they are. They must not be there
    while it traces a call that they are inside of: it would break the graph, or fail with ``fullgraph=True``.
    """

    class HookBesideCompiledCode(Hook):
        __slots__ = ()

        @torch.compiler.disable  # type: ignore[untyped-decorator]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self.function(*args, **kwargs)

    return HookBesideCompiledCode
