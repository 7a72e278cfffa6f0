"""Freezing layers in the middle of a training, really: weights stay as they are to the last bit, and backward time is saved.

Setting ``requires_grad`` on a module does nothing; it has to be set on its parameters. And a parameter that still has a gradient
from before keeps moving by momentum and weight decay; without one, torch's optimizers leave it alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nndoctor.discovery import unwrap
from nndoctor.examinations.trees import tensors
from nndoctor.lab.patient import Patient, Subject
from nndoctor.lab.progress import Progress, silent
from nndoctor.lab.representation import Activations, Measure, activations, activations_at, similarity
from nndoctor.lab.results import Result

BatchNorm: TypeAlias = Literal["eval", "train"]
TIMED_STEPS = 5


class Freezer:
    """Freezes and thaws layers of a model that trains.

    Args:
        model: the one that trains.
        batch_norm: what BatchNorm in a frozen layer does. ``eval``: it normalises by its running statistics, which stay as
            they are, also where the training loop calls ``model.train()``; the layer is then the same function for good.
            ``train``: it goes on normalising by each batch and its running statistics go on moving, though its weights do not.
    """

    def __init__(self, model: nn.Module, *, batch_norm: BatchNorm) -> None:
        self._model = unwrap(model)
        self._batch_norm = batch_norm
        self._frozen: dict[str, list[nn.Parameter]] = {}
        self._hooks: dict[str, list[RemovableHandle]] = {}

    @property
    def frozen(self) -> tuple[str, ...]:
        """Names of the layers that are frozen, in the order in which they were."""
        return tuple(self._frozen)

    def freeze(self, *names: str) -> None:
        """Freeze layers or blocks by name, now: with no gradient left, the next step does not move them any more.

        Call it between ``optimizer.step()`` and the next forward pass. Freezing twice is harmless.

        Raises:
            ValueError: the model has no such layer.
        """
        modules = dict(self._model.named_modules())
        unknown = [name for name in names if name not in modules]
        if unknown:
            raise ValueError(f"the model has no layer called {', '.join(unknown)}")
        for name in names:
            if name in self._frozen:
                continue
            self._frozen[name] = [p for p in modules[name].parameters() if p.requires_grad]
            for parameter in self._frozen[name]:
                parameter.requires_grad_(False)
                parameter.grad = None
            if self._batch_norm == "eval":
                norms = [m for m in modules[name].modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
                self._hooks[name] = [norm.register_forward_pre_hook(_keep_in_eval) for norm in norms]

    def thaw(self, *names: str) -> None:
        """Let layers train again; without names, all that are frozen. Those that never trained stay so."""
        for name in names or self.frozen:
            for parameter in self._frozen.pop(name, ()):
                parameter.requires_grad_(True)
            for hook in self._hooks.pop(name, ()):
                hook.remove()


def _keep_in_eval(module: nn.Module, args: Any) -> None:
    if module.training:
        module.eval()


def layers_with_parameters(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules that own parameters which train, in order of definition."""
    found = []
    for name, module in unwrap(model).named_modules():
        if name and any(p.requires_grad for p in module.parameters(recurse=False)):
            found.append(name)
    return tuple(found)


@dataclass
class FreezeBySchedule:
    """Freezes layer i of n at the share ``i / n`` of the training, from the first on; the last one always trains.

    Args:
        freezer: does it.
        steps: of the whole training, in whatever :meth:`update` counts (epochs, batches).
        layers: in order; by default those with parameters.
    """

    freezer: Freezer
    steps: int
    layers: tuple[str, ...]

    def update(self, step: int) -> tuple[str, ...]:
        """Freeze what is due after `step` steps; returns what was frozen now."""
        due = [name for number, name in enumerate(self.layers, 1) if number < len(self.layers) and step >= number / len(self.layers) * self.steps]
        fresh = tuple(name for name in due if name not in self.freezer.frozen)
        self.freezer.freeze(*fresh)
        return fresh


@dataclass
class FreezeBySimilarity:
    """Freezes a layer as soon as it represents fixed batches as it did one update earlier.

    Args:
        freezer: does it.
        patient: of the model that trains, with a few hundred fixed samples; it is looked at in evaluation mode, on a copy.
        layers: that may be frozen; the layer that makes the output should not be.
        threshold: similarity from which on a layer counts as converged; 0.99 and 0.995 are usual.
        measure: ``svcca``, ``pwcca`` or ``cka``.
    """

    freezer: Freezer
    patient: Patient
    layers: tuple[str, ...]
    threshold: float = 0.99
    measure: Measure = "svcca"
    _before: Mapping[str, Activations] = field(default_factory=dict, repr=False)

    def update(self) -> dict[str, float]:
        """Look at the model, say once an epoch, and freeze what has converged; returns each layer's similarity to before.

        Empty at the first call. Layers that are frozen already are listed too: their inputs may still change.
        """
        with self.patient.examined() as subject:
            present = {layer.name: layer for layer in activations(subject, layers=self.layers)}
        found = {
            name: similarity(self._before[name], layer, self.measure) for name, layer in present.items() if name in self._before
        }
        self._before = present
        self.freezer.freeze(*(name for name, value in found.items() if value >= self.threshold))
        return found


@dataclass(frozen=True)
class BackwardSaved(Result):
    """Time of the backward pass with and without freezing, in turns.

    Args:
        frozen: the layers.
        seconds: with everything training; the fastest of some, since what interrupts a pass only adds.
        seconds_frozen: with the layers frozen, the fastest too.
        share: of it that is saved.
    """

    frozen: tuple[str, ...]
    seconds: float
    seconds_frozen: float
    share: float


def backward_saved(patient: Patient, names: Sequence[str], *, steps: int = TIMED_STEPS) -> BackwardSaved:
    """Measure what freezing these layers saves of the backward pass on the patient's first batch; on copies.

    Only weight gradients are saved for a layer above one that still trains: the gradient has to pass through it.
    """
    with patient.examined(train=True) as whole, patient.examined(train=True) as part:
        Freezer(part.model, batch_norm="eval").freeze(*names)
        pairs = []
        for attempt in range(steps + 1):
            pair = _backward_seconds(whole), _backward_seconds(part)
            if attempt:
                pairs.append(pair)
    before, after = (min(times) for times in zip(*pairs, strict=True))
    return BackwardSaved(tuple(names), seconds=before, seconds_frozen=after, share=1.0 - after / before)


@dataclass(frozen=True)
class FreezableLayer:
    """One layer in the order of execution.

    Args:
        similarity: to itself at the earlier weights; NaN where it cannot be told.
        saved: share of the backward pass that freezing it and all before it saves; None where it was not measured.
    """

    name: str
    parameters: int
    similarity: float
    saved: float | None = None


@dataclass(frozen=True)
class FreezingPlan(Result):
    """Which layers have stopped changing, and what freezing them would save.

    Args:
        threshold: similarity from which on a layer counts as converged.
        layers: all with parameters of their own that train.
        ready: the converged ones from the bottom on, without a gap: those whose freezing saves backward time. Never the last one.
        saved: of the backward pass with those frozen; None where there are none.
    """

    threshold: float
    layers: tuple[FreezableLayer, ...]
    ready: tuple[str, ...]
    saved: BackwardSaved | None

    @property
    def converged(self) -> tuple[str, ...]:
        """Names of all layers that are as they were, also above one that still changes."""
        return tuple(layer.name for layer in self.layers if layer.similarity >= self.threshold)


def freezing_plan(
    patient: Patient,
    earlier: Path | Mapping[str, Tensor],
    *,
    threshold: float = 0.99,
    measure: Measure = "svcca",
    steps: int = TIMED_STEPS,
    progress: Progress = silent,
) -> FreezingPlan:
    """Compare each layer with itself at `earlier` weights, and measure what freezing from the bottom up would save.

    Times are taken for the lowest quarter, half and three quarters of the layers, and for those that are ready.

    Raises:
        SourceError: the earlier weights cannot be read, or do not fit.
    """
    train = set(layers_with_parameters(patient.model))
    now = [layer for layer in activations_at(patient, None) if layer.name in train]
    before = {layer.name: layer for layer in activations_at(patient, earlier)}
    found = {layer.name: similarity(before[layer.name], layer, measure) for layer in now if layer.name in before}
    names = list(found)
    ready = tuple(takewhile(lambda name: found[name] >= threshold, names[:-1]))
    places = sorted({round(len(names) * share) for share in (0.25, 0.5, 0.75)} - {0, len(ready)})
    times = {}
    for done, place in enumerate(places, start=1):
        times[place] = backward_saved(patient, names[:place], steps=steps).share
        progress("backward passes", done, len(places) + 1)
    saved = backward_saved(patient, ready, steps=steps) if ready else None
    if saved is not None:
        times[len(ready)] = saved.share
    progress("backward passes", len(places) + 1, len(places) + 1)
    sizes = {name: sum(p.numel() for p in module.parameters(recurse=False)) for name, module in patient.model.named_modules()}
    rows = (FreezableLayer(name, sizes[name], found[name], times.get(number)) for number, name in enumerate(names, start=1))
    return FreezingPlan(threshold, tuple(rows), ready, saved)


def _backward_seconds(subject: Subject) -> float:
    batch = subject.batches[0]
    loss = subject.batch_loss(batch)
    if not loss.requires_grad:
        return 0.0
    device = tensors((batch.args, batch.kwargs))[0].device
    started = _now(device)
    torch.autograd.grad(loss, _trained(subject.parameters().values()), allow_unused=True)
    return _now(device) - started


def _trained(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    return [parameter for parameter in parameters if parameter.requires_grad]


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
