"""Counts how much work each layer has, from its kind and the shapes that go in and out.

Reads shapes only, on a few sampled steps; together with the layer times this tells what is slow for what it does,
and how long other shapes would take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn

from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import Measured
from nndoctor.probes.forward import HookSet, Place, in_backward, is_transformed, places

NAN = float("nan")
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


@dataclass(frozen=True, slots=True)
class Work:
    """What one forward call of a layer does.

    Args:
        flops: floating point operations, a multiply-add as two; None for a kind that is not known.
        elements_in, elements_out: of the tensors that it reads and returns, without its parameters.
        bytes: of these tensors and of the layer's own parameters.
        steps: operations that have to wait for each other: time steps times layers of a recurrent network, else one.
    """

    flops: float | None
    elements_in: int
    elements_out: int
    bytes: int
    steps: int = 1


def work_of(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> Work:
    """The work of one call of `module`; reads no values.

    Formulas for the forward pass: a convolution 2 out K / groups with K elements per kernel over all input channels, a
    linear map 2 out in, a recurrent layer 2 gates hidden (in + hidden) per time step, attention its four maps and
    2 x 2 queries keys width, normalisations 5 per element, everything else of ``torch.nn`` one per element.
    """
    parameters = sum(p.numel() * p.element_size() for p in module.parameters(recurse=isinstance(module, nn.MultiheadAttention)))
    moved = sum(t.numel() * t.element_size() for t in (*inputs, output))
    steps = _time_steps(module, inputs) if isinstance(module, nn.RNNBase) else 1
    elements_in = sum(t.numel() for t in inputs)
    return Work(_flops(module, inputs, output), elements_in, output.numel(), moved + parameters, steps)


def _flops(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> float | None:
    out = output.numel()
    if isinstance(module, nn.Linear):
        return 2.0 * out * module.in_features
    if isinstance(module, CONVOLUTIONS):
        return 2.0 * out * module.in_channels / module.groups * prod(module.kernel_size)
    if isinstance(module, TRANSPOSED):
        return 2.0 * sum(t.numel() for t in inputs[:1]) * module.out_channels / module.groups * prod(module.kernel_size)
    if isinstance(module, nn.RNNBase):
        return _recurrent_flops(module, inputs)
    if isinstance(module, nn.MultiheadAttention):
        return _attention_flops(module, inputs)
    if isinstance(module, nn.Bilinear):
        return 2.0 * out * module.in1_features * module.in2_features
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag, nn.Flatten, nn.Unflatten, nn.Identity)):
        return 0.0
    if not type(module).__module__.startswith("torch.nn."):
        return None
    if "norm" in type(module).__name__.lower():
        return 5.0 * out
    return float(max(out, sum(t.numel() for t in inputs)))


def _recurrent_flops(module: nn.RNNBase, inputs: tuple[torch.Tensor, ...]) -> float | None:
    if not inputs:
        return None
    positions = inputs[0].numel() / module.input_size  # batch x time
    directions = 2 if module.bidirectional else 1
    state: int = getattr(module, "proj_size", 0) or module.hidden_size
    widths = [module.input_size] + [state * directions] * (module.num_layers - 1)
    per_position = sum(2.0 * GATES.get(module.mode, 1) * module.hidden_size * (width + state) for width in widths)
    return positions * directions * per_position


def _time_steps(module: nn.RNNBase, inputs: tuple[torch.Tensor, ...]) -> int:
    if not inputs or inputs[0].dim() < 2:
        return 1
    first = inputs[0]
    length = first.shape[1] if module.batch_first and first.dim() == 3 else first.shape[0]
    return int(length) * module.num_layers * (2 if module.bidirectional else 1)


def _attention_flops(module: nn.MultiheadAttention, inputs: tuple[torch.Tensor, ...]) -> float | None:
    if not inputs:
        return None
    width: int = module.embed_dim
    query, key = inputs[0], inputs[1] if len(inputs) > 1 else inputs[0]
    axis = 1 if module.batch_first and query.dim() == 3 else 0
    queries, keys = query.numel() / width, key.numel() / (module.kdim or width)  # batch x length
    maps: float = 2.0 * width * (2 * queries * width + keys * ((module.kdim or width) + (module.vdim or width)))
    return maps + 2 * 2.0 * queries * float(key.shape[axis]) * width


class LayerWorkProbe:
    """Work of every layer per step: flops, bytes and operations in a row, of all its forward calls.

    Looks on the second and third sampled step, then ever more seldom; shapes seldom change. ``facts`` holds the shapes.
    """

    name = "work of layers"
    tier = "times"
    hooks_layers = True
    signals = ("layer.flops", "layer.bytes", "layer.elements", "layer.steps_in_row")

    def __init__(self) -> None:
        self._index: ModelIndex | None = None
        self._places: tuple[Place, ...] = ()
        self._hooks = HookSet(_ignore)
        self._sampled = 0
        self._found: dict[int, list[Work]] = {}
        self._shapes: dict[str, list[object]] = {}

    def attach(self, index: ModelIndex) -> None:
        self._index = index
        found, _ = places(index)
        self._places = tuple(place for place in found if place.layer is not None and place.fused_in is None)

    def detach(self) -> None:
        self._hooks.remove()
        self._found.clear()

    def begin_step(self, step: int, sampled: bool) -> None:
        self._hooks.remove()
        self._found = {}
        if not sampled or self._index is None:
            return
        self._sampled += 1
        if self._sampled == 3 or (self._sampled > 1 and self._sampled & (self._sampled - 1) == 0):
            self._hooks = HookSet(_ignore)
            for place in self._places:
                self._hooks.after(place, self._layer_ended)

    def _layer_ended(self, place: Place, module: nn.Module, args: Any, output: Any) -> None:
        if not torch.is_grad_enabled() or in_backward() or is_transformed():
            return
        inputs = tuple(value for value in args if isinstance(value, torch.Tensor))
        result = output[0] if isinstance(output, (tuple, list)) and output else output
        if isinstance(result, torch.Tensor) and place.layer is not None:
            self._found.setdefault(place.layer, []).append(work_of(module, inputs, result))
            shapes: list[object] = [list(inputs[0].shape) if inputs else None, list(result.shape)]
            self._shapes.setdefault(place.name, shapes)

    def collect(self) -> Mapping[str, Measured]:
        """What was counted on this step; {} on steps without a look.

        Raises:
            Exception: what went wrong in one of the hooks.
        """
        if self._hooks.failure is not None:
            raise self._hooks.failure
        if self._index is None or not self._found:
            return {}
        size = len(self._index.layers)
        measures: Mapping[str, Callable[[Work], float]] = {
            "layer.flops": lambda work: NAN if work.flops is None else work.flops,
            "layer.bytes": lambda work: float(work.bytes),
            "layer.elements": lambda work: float(work.elements_in + work.elements_out),
            "layer.steps_in_row": lambda work: float(work.steps),
        }
        return {
            name: [sum(map(measure, self._found[n])) if n in self._found else NAN for n in range(size)]
            for name, measure in measures.items()
        }

    def facts(self) -> dict[str, Any]:
        return {"layer_shapes": dict(self._shapes)}


def _ignore() -> None:
    """The failure is raised when the step is collected."""
