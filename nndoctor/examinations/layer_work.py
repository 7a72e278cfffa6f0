"""The work of every layer of a model that has never run: its forward pass on the device ``meta``, which computes shapes and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from nndoctor.discovery import ModelIndex
from nndoctor.probes.layer_work import Work, work_of


@dataclass(frozen=True, slots=True)
class LayerCount:
    """One layer and the work of all its calls in one forward pass, in the order of first calls."""

    name: str
    kind: str
    work: tuple[Work, ...]
    parameter_bytes: int
    first: bool


def count_work(model: nn.Module, shapes: Sequence[Sequence[int]], integers: bool = False) -> list[LayerCount]:
    """The work of one forward pass of `model` on inputs of these shapes; the model itself is not touched.

    Args:
        shapes: one per positional argument of the model, batch first.
        integers: the inputs are whole numbers (tokens).

    Raises:
        RuntimeError: the forward pass cannot be run with such inputs; what it says is torch's own.
    """
    patient = copy.deepcopy(model).to("meta")
    index = ModelIndex(patient)
    calls: dict[int, list[Work]] = {}
    handles = [
        module.register_forward_hook(partial(_note, calls, number)) for number, module in enumerate(index.layers) if module is not None
    ]
    inputs = [torch.empty(*shape, dtype=torch.long if integers else torch.float32, device="meta") for shape in shapes]
    try:
        with torch.no_grad():
            patient(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    first = next(iter(calls), None)
    return [
        LayerCount(index.layer_names[number], index.layer_kinds[number], tuple(works), _parameter_bytes(index.layers[number]), number == first)
        for number, works in calls.items()
    ]


def _note(calls: dict[int, list[Work]], number: int, module: nn.Module, args: Any, output: Any) -> None:
    inputs = tuple(value for value in args if isinstance(value, torch.Tensor))
    result = output[0] if isinstance(output, (tuple, list)) and output else output
    if isinstance(result, torch.Tensor):
        calls.setdefault(number, []).append(work_of(module, inputs, result))


def _parameter_bytes(module: nn.Module | None) -> int:
    if module is None:
        return 0
    deep = isinstance(module, nn.MultiheadAttention)
    return sum(param.numel() * param.element_size() for param in module.parameters(recurse=deep))
