"""Attaching without the user's help: find model, optimizer, loss and loaders of a script as it runs.

Optimizers are noted when they are made, outermost modules when they are called. At the first
``backward()`` the modules that hold the optimizers' parameters are wrapped, and the searching hooks go.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.hooks import RemovableHandle

from nndoctor.checkup_results import Checkup
from nndoctor.discovery import unique_names, unwrap
from nndoctor.doctor import Doctor, attached_doctors, wrap
from nndoctor.examinations.first_step import FirstStep, examine_first_step
from nndoctor.interpose import PROCESS
from nndoctor.probes.base import Hook
from nndoctor.subscribers import Subscriber

LOSS_FUNCTIONS = (
    "cross_entropy",
    "nll_loss",
    "mse_loss",
    "l1_loss",
    "smooth_l1_loss",
    "huber_loss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "kl_div",
)

COMPILE_WARNS = r"Using `torch\.compile\(module\)` when there are global hooks"


class AutoAttach:
    """Wraps whatever the running script trains; ``doctor`` is there from the first backward on.

    Args:
        rules, ui, budget, cadence, eager_every, time_every_step, run_dir, name, context: as for :func:`nndoctor.wrap`.
        said: told of what could not be attached, in one sentence.
        examined: called with the checkup that is made at the first backward, before the doctor attaches; None: no checkup.
        seconds: time that the checkup may take.
        subscribers: as for ``nndoctor.wrap``.
    """

    def __init__(
        self,
        *,
        rules: Sequence[str | Path] = ("core",),
        ui: str = "auto",
        budget: float = 0.01,
        cadence: int | None = None,
        eager_every: int | None = None,
        time_every_step: bool = False,
        run_dir: Path | None = None,
        name: str | None = None,
        context: Mapping[str, bool] | None = None,
        said: Callable[[str], None] = lambda text: None,
        examined: Callable[[Checkup], None] | None = None,
        seconds: float = 10.0,
        subscribers: Sequence[Subscriber] = (),
    ) -> None:
        self.doctor: Doctor | None = None
        self._options: dict[str, Any] = {
            "rules": rules, "ui": ui, "budget": budget, "cadence": cadence, "eager_every": eager_every,
            "time_every_step": time_every_step, "run_dir": run_dir, "name": name, "context": context, "subscribers": subscribers,
        }  # fmt: skip
        self._said = said
        self._examined = examined
        self._seconds = seconds
        self._first_step = None if examined is None else FirstStep()
        self._optimizers: list[torch.optim.Optimizer] = []
        self._roots: WeakSet[nn.Module] = WeakSet()
        self._filter: Any = None
        self._order: list[int] = []
        self._depth = 0
        self._handles: list[RemovableHandle] = []
        self._undo: list[Callable[[], None]] = []
        self._loader: object | None = None
        self._served = 0
        self._validation: list[tuple[torch.Tensor, torch.Tensor | None]] = []
        self._scaled: tuple[object, object] | None = None
        self._tries = 0
        self._states: list[tuple[nn.Module, Sequence[str], Sequence[str]]] = []
        self._watching = True

    def install(self) -> None:
        """Start to look; nothing of the user's is touched yet."""
        self._patch(torch.optim.Optimizer, "__init__", self._note_optimizer)
        for name in LOSS_FUNCTIONS:
            self._patch(F, name, self._note_validation)
        # torch.compile warns of global hooks as if they were the script's own.
        warnings.filterwarnings("ignore", message=COMPILE_WARNS)
        self._filter = warnings.filters[0]
        hooks = nn.modules.module
        self._handles = [
            hooks.register_module_forward_pre_hook(Hook(self._entered)),
            hooks.register_module_forward_hook(Hook(self._left), always_call=True),
        ]
        if self._first_step is not None:
            self._first_step.watch()
        PROCESS.add(self)

    def remove(self) -> None:
        """Put everything back; the doctor, if there is one, stays attached."""
        PROCESS.remove(self)
        self._stop_looking()
        while self._undo:
            self._undo.pop()()

    def _stop_looking(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self._filter in warnings.filters:
            warnings.filters.remove(self._filter)  # type: ignore[attr-defined]
        self._depth = 0
        if self._first_step is not None:
            self._first_step.stop()

    def _patch(self, owner: Any, name: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        original = getattr(owner, name)
        replacement = functools.wraps(original)(wrapper(original))
        setattr(owner, name, replacement)

        def undo() -> None:
            if getattr(owner, name) is replacement:
                setattr(owner, name, original)

        self._undo.append(undo)

    def _note_optimizer(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def init(optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> None:
            original(optimizer, *args, **kwargs)
            if self._watching and all(optimizer is not known for known in self._optimizers):
                self._optimizers.append(optimizer)

        return init

    def _note_validation(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def loss_function(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            doctor = self.doctor
            if doctor is not None and not doctor.is_probing and not torch.is_grad_enabled() and len(self._validation) < 100_000:
                self._keep_validation(args, result)
            return result

        return loss_function

    def _keep_validation(self, args: tuple[Any, ...], result: object) -> None:
        if not isinstance(result, torch.Tensor) or result.numel() != 1:
            return
        correct = None
        if len(args) > 1 and all(isinstance(a, torch.Tensor) for a in args[:2]):
            scores, labels = args[0], args[1]
            if scores.dim() == 2 and labels.dim() == 1 and not labels.is_floating_point() and scores.shape[1] > 1:
                correct = (scores.argmax(1) == labels).float().mean()
        self._validation.append((result.detach(), correct))

    def _entered(self, module: nn.Module, args: object) -> None:
        self._depth += 1
        if self._watching and self._depth == 1 and module not in self._roots and any(True for _ in module.parameters()):
            self._roots.add(module)
            self._order.append(id(module))

    def _left(self, module: nn.Module, args: object, output: object) -> None:
        self._depth -= 1

    # ------------------------------------------------------------------ events

    def backward_begins(self, loss: object) -> None:
        if self.doctor is None:
            if self._depth == 0 or self._tries > 20:
                self._examine(loss)
                self._attach()
            self._tries += 1
            if self.doctor is not None:
                self.doctor.joined_at(loss, self._loader, self._served, self._scaled)
                self._scaled = None
        elif self._validation:
            self._report_validation()

    def _attach(self) -> None:
        if attached_doctors():
            self.doctor = attached_doctors()[0]  # the script wraps its model itself
            self.doctor.subscribe(*self._options["subscribers"])
            self._stop_looking()
            return
        roots, optimizers = self._trained()
        if not roots or not optimizers:
            return
        models = dict(zip(unique_names([type(unwrap(r)).__name__.lower() for r in roots]), roots, strict=True))
        self.doctor = wrap(
            models if len(roots) > 1 else roots[0],
            optimizers if len(optimizers) > 1 else optimizers[0],
            loader=self._loader,
            **self._options,
        )
        for state in self._states:
            self.doctor.state_loaded(*state)
        self._states.clear()
        strangers = len(self._optimizers) - len(optimizers)
        if strangers:
            self._said(f"{strangers} optimizer(s) hold parameters of no module that was called before the first backward")
        self._stop_looking()

    def _trained(self) -> tuple[list[nn.Module], list[torch.optim.Optimizer]]:
        """The outermost modules with parameters that an optimizer holds, and those optimizers."""
        held = {id(p) for o in self._optimizers for g in o.param_groups for p in g["params"]}
        roots = sorted(
            (m for m in self._roots if any(id(p) in held for p in m.parameters())),
            key=lambda m: self._order.index(id(m)),
        )
        inner = {id(sub) for root in roots for sub in unwrap(root).modules() if sub is not unwrap(root)}
        roots = [root for root in roots if id(unwrap(root)) not in inner]
        owned = {id(p) for root in roots for p in root.parameters()}
        return roots, [o for o in self._optimizers if any(id(p) in owned for g in o.param_groups for p in g["params"])]

    def _examine(self, loss: object) -> None:
        """Make the checkup that was asked for; the modules and optimizers that it makes are not the script's."""
        step, tell = self._first_step, self._examined
        if step is None or tell is None or not isinstance(loss, torch.Tensor):
            return
        self._first_step = None
        step.stop()
        roots, optimizers = self._trained()
        if not roots:  # an optimizer that holds none of the model's parameters is a finding, too
            roots, optimizers = list(self._roots), self._optimizers
        self._watching = False
        try:
            checkup = examine_first_step(step.patient(loss, roots, list(optimizers), self._loader, self._seconds))
        except LookupError as reason:
            self._said(f"no checkup was made: {reason}")
            return
        except Exception as error:
            self._said(f"the checkup failed ({type(error).__name__}: {error})")
            return
        finally:
            self._watching = True
        tell(checkup)

    def _report_validation(self) -> None:
        """Hand over the validation that ended just now, as its mean over batches."""
        taken, self._validation = self._validation, []
        observed: dict[str, float] = {"val_loss": float(torch.stack([loss.float() for loss, _ in taken]).mean())}
        correct = [c for _, c in taken if c is not None]
        if correct:
            observed["val_accuracy"] = float(torch.stack(correct).mean())
        if self.doctor is not None:
            self.doctor.observe(**observed)

    def finish(self) -> None:
        """Report a validation at the very end of the script, and put everything back."""
        if self._validation:
            self._report_validation()
        self.remove()

    def batch_loaded(self, loader: object, batch: object, seconds: float) -> None:
        if self.doctor is None:
            if loader is not self._loader:
                self._loader, self._served = loader, 0
            self._served += 1

    def loss_scaled(self, loss: object, scaled: object) -> None:
        if self.doctor is None:
            self._scaled = (loss, scaled)

    def state_loaded(self, module: nn.Module, missing: Sequence[str], unexpected: Sequence[str]) -> None:
        """Keep what a checkpoint left out for the doctor that is to come."""
        if self.doctor is None and len(self._states) < 16:
            self._states.append((module, missing, unexpected))

    def observer_failed(self, event: str, error: Exception) -> None:
        """The search failed: give up looking, say so, leave the script alone."""
        self._stop_looking()
        self._said(f"could not attach ({event}: {type(error).__name__}: {error})")
        self._tries = 1 << 30
