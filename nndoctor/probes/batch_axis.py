"""Whether layers that work along a sequence were handed the batch instead: axes swapped, or a view for a transpose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nndoctor.discovery import ModelIndex
from nndoctor.probes.association import tensors_in
from nndoctor.probes.base import Measured
from nndoctor.probes.forward import HookSet, Place, fuses_now, in_backward, places
from nndoctor.probes.supervision import supervision_of

LOOKS = 8
"""Steps looked at; shapes do not change their meaning later."""

SEQUENCE_LAYERS = (nn.RNNBase, nn.MultiheadAttention)
VIEWS = frozenset({"ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0"})


@dataclass(frozen=True, slots=True)
class Handed:
    """What one sequence layer was handed.

    Args:
        layer: its number.
        shape: of its input.
        batch_first: how it reads it.
        before: the shape of which this is a mere view, where that has the same sizes in another order.
    """

    layer: int
    shape: tuple[int, ...]
    batch_first: bool
    before: tuple[int, ...] | None


class BatchAxisProbe:
    """Looks at recurrent and attention layers in the first steps, and holds their inputs against the batch."""

    name = "batch axis"
    tier = "data"
    hooks_layers = True
    signals = ("layer.batch_as_sequence", "layer.batch_reshaped")

    def __init__(self) -> None:
        self._index: ModelIndex | None = None
        self._places: tuple[Place, ...] = ()
        self._hooks: HookSet | None = None
        self._inputs: tuple[torch.Tensor, ...] = ()
        self._handed: list[Handed] = []
        self._samples: int | None = None
        self._measured: dict[str, Measured] = {}
        self._looks = 0
        self._looking = False
        self._failure: Exception | None = None

    def attach(self, index: ModelIndex) -> None:
        self._index = index
        found, _ = places(index)
        self._places = tuple(p for p in found if isinstance(p.module, SEQUENCE_LAYERS) and p.layer is not None)

    def detach(self) -> None:
        self._let_go()
        self._index = None
        self._places = ()

    def _let_go(self) -> None:
        """Take the hooks off; they are there while a model runs with gradients, and at no other time."""
        if self._hooks is not None:
            self._failure = self._failure or self._hooks.failure
            self._hooks.remove()
            self._hooks = None

    def begin_step(self, step: int, sampled: bool) -> None:
        self._let_go()
        self._handed, self._measured, self._samples, self._inputs = [], {}, None, ()
        self._looking = sampled and bool(self._places) and self._looks < LOOKS

    def batch_loaded(self, loader: object, batch: object, training: bool) -> None:
        """The loader knows how many samples a batch has, full ones at least."""
        size = getattr(loader, "batch_size", None)
        if training and self._looking and isinstance(size, int):
            self._samples = size

    def forward_begins(self, root: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if not self._looking or self._hooks is not None:
            return
        self._inputs = tuple(tensor for tensor in tensors_in((args, kwargs)) if tensor.dim() >= 2)
        self._hooks = HookSet(self._let_go)
        for place in self._places:
            if not any(fuses_now(module) for module in (place.module, place.fused_in) if module is not None):
                self._hooks.before(place, self._note)

    def forward_ended(self, root: object, output: object) -> None:
        self._let_go()

    def _note(self, place: Place, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if not torch.is_grad_enabled() or in_backward() or place.layer is None:
            return
        tensor = next(tensors_in(arguments), None)
        if tensor is None or tensor.dim() not in (2, 3):
            return
        before = self._merely_viewed(tensor)
        self._handed.append(Handed(place.layer, tuple(tensor.shape), bool(module.batch_first), before))

    def _merely_viewed(self, tensor: torch.Tensor) -> tuple[int, ...] | None:
        """The shape that `tensor` had before a view gave it the same sizes in another order."""
        shape = tuple(tensor.shape)
        if type(tensor.grad_fn).__name__ in VIEWS:
            sizes = getattr(tensor.grad_fn, "_saved_self_sym_sizes", None)
            before = tuple(int(n) for n in sizes) if sizes is not None else None
        else:
            same = (i for i in self._inputs if i.data_ptr() == tensor.data_ptr() and i.numel() == tensor.numel())
            origin = next(same, None)
            plain = origin is not None and origin.is_contiguous() and tensor.is_contiguous()
            before = tuple(origin.shape) if plain and origin is not None else None
        return before if before is not None and before != shape and sorted(before) == sorted(shape) else None

    def backward_begins(self, loss: object) -> None:
        if not self._looking or self._index is None or not self._handed or not isinstance(loss, torch.Tensor) or loss.grad_fn is None:
            return
        self._looking = False
        samples = self._batch(loss)
        if samples is None:
            return
        self._looks += 1
        swapped = [float("nan")] * len(self._index.layers)
        reshaped = list(swapped)
        for handed in self._handed:
            swapped[handed.layer] = _larger(swapped[handed.layer], batch_as_sequence(handed, samples))
            reshaped[handed.layer] = _larger(reshaped[handed.layer], batch_reshaped(handed, samples))
        self._measured = {"layer.batch_as_sequence": swapped, "layer.batch_reshaped": reshaped}

    def _batch(self, loss: torch.Tensor) -> int | None:
        """How many samples there are, if the model's inputs have them as their first axis; else None."""
        found = supervision_of(loss)
        samples = len(found.target) if found is not None else self._samples
        first = {tensor.shape[0] for tensor in self._inputs}
        return samples if samples is not None and first == {samples} and samples > 1 else None

    def collect(self) -> Mapping[str, Measured]:
        if self._failure is not None:
            raise self._failure
        measured, self._measured = self._measured, {}
        return measured


def _larger(one: float, other: float) -> float:
    return other if one != one else max(one, other) if other == other else one


def batch_as_sequence(handed: Handed, samples: int) -> float:
    """1 if the layer walks along the samples of the batch, 0 if not, NaN where the sizes do not tell."""
    shape = handed.shape
    if len(shape) == 2:  # without a batch axis: (sequence, features)
        return 1.0 if shape[0] == samples else float("nan")
    batch, sequence = (shape[0], shape[1]) if handed.batch_first else (shape[1], shape[0])
    if batch == sequence:
        return float("nan")
    return 1.0 if sequence == samples else 0.0 if batch == samples else float("nan")


def batch_reshaped(handed: Handed, samples: int) -> float:
    """1 if a view moved the sizes of batch and sequence and left the numbers where they were, 0 if not."""
    before, after = handed.before, handed.shape
    if before is None or len(after) != 3 or before.count(samples) != 1:
        return 0.0
    return float(before.index(samples) != after.index(samples))
