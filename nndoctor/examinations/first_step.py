"""The first training step of a script, watched from outside, as something that can be examined."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nndoctor.checkup_results import Checkup
from nndoctor.discovery import unwrap
from nndoctor.examinations.checkup import examine
from nndoctor.examinations.patient import Batch, Patient, loss_among, placed
from nndoctor.examinations.tape import Replay, Tape, replay_of
from nndoctor.examinations.trees import mapped, tensors
from nndoctor.examinations.untouched import generators_kept
from nndoctor.probes.base import Hook
from nndoctor.probes.functional import active_modes, compiler_has_run
from nndoctor.probes.graph import walk


@dataclass(frozen=True)
class OuterCall:
    """One call of a module that was inside no other, with what it got and gave, and the autocast it ran under."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    autocast: Callable[[], AbstractContextManager[Any]]


class FirstStep:
    """Watches calls of modules and, after the first, the lines that make the loss, until the first backward()."""

    def __init__(self) -> None:
        self.calls: list[OuterCall] = []
        self._depth = 0
        self._tape: Tape | None = None
        self._handles: list[RemovableHandle] = []

    def watch(self) -> None:
        """Start; nothing of the user's is touched."""
        hooks = nn.modules.module
        self._handles = [
            hooks.register_module_forward_pre_hook(Hook(self._entered)),
            hooks.register_module_forward_hook(Hook(self._left), with_kwargs=True, always_call=True),
        ]

    def stop(self) -> None:
        """Stop watching; what was seen is kept."""
        for handle in self._handles:
            handle.remove()
            _forget_keywords(handle)
        self._handles.clear()
        if self._tape is not None:
            self._tape.leave()

    def _entered(self, module: nn.Module, args: object) -> None:
        if self._depth or any(True for _ in module.parameters()):
            self._depth += 1  # a loss module without parameters is part of the loss, not a model

    def _left(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if self._depth == 0:
            return
        self._depth -= 1
        learns = torch.is_grad_enabled() and any(t.requires_grad for t in tensors(output))
        if self._depth or not learns:
            return
        self.calls.append(OuterCall(module, args, kwargs, output, _autocast_now(tensors(output)[0].device.type)))
        # Compiled code is guarded on modes and would be compiled anew. A mode of the user's that is in force may
        # end before ours does, and would then take ours off the stack in place of itself.
        if len(self.calls) == 1 and not compiler_has_run() and not active_modes():
            self._tape = Tape(output)
            self._tape.enter()
        elif self._tape is not None:
            self._tape.leave()

    def patient(
        self, loss: Tensor, trained: Sequence[nn.Module], optimizers: Sequence[torch.optim.Optimizer], loader: object, seconds: float
    ) -> Patient:
        """What the step shows of model, batch, loss and optimizer.

        Raises:
            LookupError: no model was called in a way that could be done again.
        """
        known = {id(unwrap(module)) for module in trained}
        calls = [call for call in self.calls if id(unwrap(call.module)) in known]
        if not calls:
            raise LookupError("no call of a trained model was seen before the first backward()")
        call = calls[0]
        model = unwrap(call.module)
        batch = _batch_of(call, loader)
        with call.autocast():
            replay, reason = self._replayed(loss, batch, others=len(self.calls) - 1)
        owned = {id(p) for p in model.parameters()}
        holding = [o for o in optimizers if any(id(p) in owned for group in o.param_groups for p in group["params"])]
        candidates = holding or list(optimizers)
        inside = loss_among(call.output) is loss
        if replay is not None and replay.targets and not inside:
            targets = replay.targets[0] if len(replay.targets) == 1 else replay.targets
            batch = placed(Batch(batch.args, batch.kwargs, targets), batch.axis if batch.axis_known else None)
        return Patient(
            model=model,
            loss_function=None if inside or replay is None else _as_loss_function(replay),
            batches=(batch,),
            # One that holds nothing of the model is a finding; several may share it in ways that are not looked into.
            optimizer=candidates[0] if len(candidates) == 1 else None,
            seconds=seconds,
            unknown_loss="" if inside else reason,
            seen_loss=loss,
            autocast=call.autocast,
        )

    def _replayed(self, loss: Tensor, batch: Batch, others: int) -> tuple[Replay | None, str]:
        """The loss as a function, or the reason why it is not known."""
        if others:
            return None, f"the loss is not known as a function: models were called {others + 1} times before the first backward()"
        if self._tape is None:
            return None, "the loss is not known as a function: the script compiles its code, or runs under a mode such as a default device"
        samples = next((int(t.shape[0]) for _, t in batch.inputs if t.dim() > 0), None)
        replay = replay_of(self._tape, loss, samples)
        if replay is None:
            return None, "the loss is not known as a function: doing again what the script did with the output gave another loss"
        return replay, ""


def _forget_keywords(removed: RemovableHandle) -> None:
    """Take out what PyTorch leaves behind of a removed hook on all modules that asked for keyword arguments.

    It keeps the hook's number in a table of its own, and whoever calls a compiled model is from then on warned of
    a global hook that is no more (PyTorch 2.13). No public call reaches that table.
    """
    table = getattr(nn.modules.module, "_global_forward_hooks_with_kwargs", None)
    if isinstance(table, dict):
        table.pop(removed.id, None)


def _as_loss_function(replay: Replay) -> Callable[..., Any]:
    return replay


def _batch_of(call: OuterCall, loader: object) -> Batch:
    args, kwargs = mapped(lambda t: t.detach(), (call.args, call.kwargs))
    batch = Batch(args, kwargs)
    served = getattr(loader, "batch_size", None)
    first = next((t for _, t in batch.inputs if t.dim() > 0), None)
    if first is not None and served is not None and first.shape[0] == served:
        return placed(batch, 0)  # a loader puts samples first
    return placed(batch, None)


def _autocast_now(device: str) -> Callable[[], AbstractContextManager[Any]]:
    """The autocast that is in force, to be entered again later."""
    if not torch.is_autocast_enabled(device):
        return nullcontext
    kind = torch.get_autocast_dtype(device)
    return lambda: torch.autocast(device, dtype=kind)


def examine_first_step(patient: Patient) -> Checkup:
    """The checkup of a running script: random generators, gradients and autograd state stay what they are."""
    with generators_kept(), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if patient.seen_loss is not None and patient.unknown_loss:
            patient.seen_graph = walk(patient.seen_loss)
        return examine(patient)
