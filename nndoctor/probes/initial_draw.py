"""Tells weights that still are the random draw of torch's own initialisation; frozen ones too, which no optimizer holds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from nndoctor.discovery import ModelIndex
from nndoctor.probes.sketch import Sketch, gather, local

WIDTH = 256
"""Values of each frozen weight that are looked at."""

FEWEST = 64
DEVIATIONS = 4
"""Standard errors by which a moment of a draw may lie beside that of its distribution: all three do in 99.98 %."""


def is_embedding(layer: nn.Module | None) -> bool:
    return isinstance(layer, (nn.Embedding, nn.EmbeddingBag))


def uniform_draw(mean: torch.Tensor, std: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    """Whether values of these moments are spread uniformly around zero, as linear layers and convolutions start.

    max / std is sqrt(3) for a uniform draw, 1 for constants of one size, 2.5 and more once trained or Gaussian.
    """
    uniform = (largest / std.clamp_min(1e-30) - 3**0.5).abs() < 0.06
    centred: torch.Tensor = mean.abs() < 0.15 * std + 1e-30
    return uniform & centred


def normal_draw(values: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """Whether rows of values (rows, width), zero beyond `count` (rows,), are standard normal, as embeddings start.

    By the means of x, x squared and |x|: 0, 1 and sqrt(2 / pi), with variances of 1, 2 and 1 - 2 / pi over n.
    """
    sizes = values.abs()
    error = DEVIATIONS * count.rsqrt()
    centred: torch.Tensor = (values.sum(1) / count).abs() < error
    unit: torch.Tensor = ((values * values).sum(1) / count - 1).abs() < 2**0.5 * error
    light_tails: torch.Tensor = (sizes.sum(1) / count - (2 / torch.pi) ** 0.5).abs() < (1 - 2 / torch.pi) ** 0.5 * error
    return centred & unit & light_tails


@dataclass
class _Device:
    """The frozen weights on one device."""

    numbers: list[int]
    params: list[nn.Parameter]
    embeddings: torch.Tensor  # (rows,) bool
    sketch: Sketch


class FrozenWeights:
    """Looks at weights that need no gradient and that no optimizer holds: nobody else does."""

    def __init__(self, index: ModelIndex) -> None:
        self._index = index
        self._layout: tuple[int, ...] = ()
        self._devices: list[_Device] = []

    def drawn(self, held: Collection[int]) -> list[tuple[list[int], torch.Tensor]]:
        """The numbers of these weights, and for each whether it looks untrained: 1, 0, or NaN for a handful of values.

        Args:
            held: identities of the parameters that optimizers hold.
        """
        chosen = [
            p for p in self._index.params if not p.requires_grad and p.dim() > 1 and p.is_floating_point() and id(p) not in held
        ]
        layout = tuple(x for p in chosen for x in (id(p), local(p).data_ptr()))
        if layout != self._layout:
            self._layout, self._devices = layout, list(self._built(chosen))
        return [(device.numbers, _drawn(device)) for device in self._devices]

    def _built(self, chosen: Sequence[nn.Parameter]) -> list[_Device]:
        index, built = self._index, []
        for device in dict.fromkeys(p.device for p in chosen):
            params = [p for p in chosen if p.device == device]
            numbers = [index.param_numbers[id(p)] for p in params]
            embeddings = torch.tensor([is_embedding(index.layers[index.param_layers[n]]) for n in numbers], device=device)
            built.append(_Device(numbers, params, embeddings, Sketch(params, WIDTH)))
        return built


def _drawn(device: _Device) -> torch.Tensor:
    """One value per weight, (rows,)."""
    sketch = device.sketch
    values = sketch.matrix()  # (rows, width)
    gather(sketch.destinations(values), sketch.sources(device.params))
    mean = values.sum(1) / sketch.count
    std = ((values * values).sum(1) / sketch.count - mean * mean).clamp_min(0).sqrt()
    uniform = uniform_draw(mean, std, values.abs().amax(1))
    found = torch.where(device.embeddings, normal_draw(values, sketch.count), uniform).float()
    return torch.where(sketch.count >= FEWEST, found, torch.nan)
