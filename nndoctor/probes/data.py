"""What enters the model: scale, range and repetition of the input batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from nndoctor.discovery import NORMALISATIONS, ModelIndex
from nndoctor.probes.base import Measured

MOST_ELEMENTS = 1 << 13
FINGERPRINT = 8192
FINGERPRINT_SAMPLES = 8


TARGET_NAMES = ("labels", "label", "targets", "target", "y")
"""What targets are called in batches that are mappings, and in the calls of models that compute their own loss."""


class DataProbe:
    """Statistics of the first tensor of the model's input, and whether the same batch came again."""

    name = "data"
    tier = "data"
    signals = (
        "input.mean", "input.std", "input.min", "input.max", "input.nonfinite", "input.feature_spread",
        "input.offset", "input.normalised_by_model", "input.batch_size", "input.repeated",
    )  # fmt: skip

    def __init__(self) -> None:
        self._sampled = False
        self._measured: dict[str, Measured] = {}
        self._weights: torch.Tensor | None = None
        self._print: torch.Tensor | None = None
        self._shape: tuple[int, ...] = ()
        self._repeated: torch.Tensor | None = None
        self._first_is_norm: bool | None = None
        self._index: ModelIndex | None = None
        self._seen_this_step = False

    def attach(self, index: ModelIndex) -> None:
        self._index = index

    def detach(self) -> None:
        self._index = None
        self._print = self._weights = self._repeated = None
        self._measured = {}

    def begin_step(self, step: int, sampled: bool) -> None:
        self._sampled = sampled
        self._measured = {}
        self._seen_this_step = False

    @torch.no_grad()
    def forward_begins(self, root: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Look at the input of a training forward pass; the first of the step counts."""
        if not self._sampled or self._seen_this_step:
            return
        tensor = first_tensor(args) if args else None
        if tensor is None:
            tensor = first_tensor(tuple(kwargs.values()))
        if tensor is None or tensor.numel() == 0 or tensor.layout != torch.strided:
            return
        self._seen_this_step = True
        batch = float(tensor.shape[0]) if tensor.dim() else 1.0
        self._measured["input.batch_size"] = batch
        self._measured["input.repeated"] = self._count_repeats(tensor.detach())
        if tensor.is_floating_point():
            self._measured.update(input_statistics(tensor.detach()))
            self._measured["input.normalised_by_model"] = float(self._starts_with_norm())

    def _count_repeats(self, tensor: torch.Tensor) -> torch.Tensor:
        """Consecutive looks at which the batch had the same fingerprint, shape (1,)."""
        flat = _some_of(tensor).double()
        if self._weights is None or self._weights.device != flat.device:
            generator = torch.Generator().manual_seed(20_000)
            self._weights = torch.rand(FINGERPRINT, generator=generator).to(flat.device)
        fingerprint = (torch.nan_to_num(flat) * self._weights[: flat.numel()]).sum()
        shape = tuple(tensor.shape)
        if self._print is None or self._repeated is None or self._print.device != flat.device or shape != self._shape:
            self._repeated = torch.zeros(1, device=flat.device)
        else:
            self._repeated = (self._repeated + 1) * (fingerprint == self._print)
        self._print, self._shape = fingerprint, shape
        return self._repeated

    def _starts_with_norm(self) -> bool:
        """Whether the first layer that was ever called normalises; known after the first forward pass."""
        if self._first_is_norm is None and self._index is not None:
            called = [(depth, i) for i, depth in enumerate(self._index.layer_depths) if depth >= 0]
            if not called:
                return False
            first = self._index.layers[min(called)[1]]
            self._first_is_norm = isinstance(first, NORMALISATIONS)
        return bool(self._first_is_norm)

    def collect(self) -> Mapping[str, Measured]:
        measured, self._measured = self._measured, {}
        if "input.normalised_by_model" in measured:
            measured["input.normalised_by_model"] = float(self._starts_with_norm())
        return measured


def _some_of(tensor: torch.Tensor) -> torch.Tensor:
    """At most 8192 elements of eight samples spread over the batch, shape (n,).

    Whole samples, and an odd stride inside large ones: a stride that divides the row length sees the
    same few pixels of every image, which are black borders as often as not.
    """
    if tensor.dim() > 1 and tensor.shape[0] > FINGERPRINT_SAMPLES:
        tensor = tensor[:: tensor.shape[0] // FINGERPRINT_SAMPLES]
    flat = tensor.reshape(-1)
    stride = -(-flat.numel() // FINGERPRINT)
    return flat[:: stride + (stride % 2 == 0)][:FINGERPRINT]


def first_tensor(value: object, depth: int = 0) -> torch.Tensor | None:
    """The first tensor in nested tuples, lists and mappings, floating point before others at each level, scalars last.

    A scalar beside batches is a setting: Transformers' Trainer hands the number of tokens to the model.
    """
    if isinstance(value, torch.Tensor):
        return value
    if depth > 4:
        return None
    children = list(value.values()) if isinstance(value, Mapping) else list(value) if isinstance(value, (tuple, list)) else []
    found = [t for t in (first_tensor(child, depth + 1) for child in children) if t is not None]
    batches = [t for t in found if t.dim()]
    floating = [t for t in batches if t.is_floating_point()]
    return next(iter(floating or batches or found), None)


def last_tensor(value: object, depth: int = 0) -> torch.Tensor | None:
    """The last tensor in a batch as loaders make it, which by custom holds the targets."""
    if isinstance(value, torch.Tensor):
        return value
    if depth > 4:
        return None
    if isinstance(value, Mapping):
        for key in TARGET_NAMES:
            if isinstance(value.get(key), torch.Tensor):
                return value[key]  # type: ignore[no-any-return]
        return None
    if isinstance(value, (tuple, list)) and len(value) > 1:
        return last_tensor(value[-1], depth + 1)
    return None


def input_statistics(tensor: torch.Tensor) -> dict[str, Measured]:
    """Moments and range of a floating-point input over a sub-sample, each of shape (1,).

    Features of a two-dimensional input and channels of an image are compared with each other:
    ``input.feature_spread`` is the largest over the median of their standard deviations,
    ``input.offset`` the largest |mean| / std among those that vary.
    """
    values = tensor.float()
    if values.numel() > MOST_ELEMENTS and values.dim() > 1:
        keep = max(8, values.shape[0] * MOST_ELEMENTS // values.numel())
        values = values[:: max(1, values.shape[0] // keep)]
    finite = torch.isfinite(values)
    clean = torch.where(finite, values, torch.zeros_like(values))
    count = finite.sum().clamp_min(1)
    mean = clean.sum() / count
    std = ((torch.where(finite, values - mean, torch.zeros_like(values)) ** 2).sum() / count).sqrt()
    measured: dict[str, Measured] = {
        "input.mean": mean[None],
        "input.std": std[None],
        "input.min": torch.where(finite, values, torch.inf).amin()[None],
        "input.max": torch.where(finite, values, -torch.inf).amax()[None],
        "input.nonfinite": (~finite).sum().float()[None],
    }
    if clean.dim() >= 2 and clean.shape[0] >= 8:
        unit = clean.transpose(0, 1).reshape(clean.shape[1], -1)  # (channels or features, samples)
        unit_mean, unit_std = unit.mean(1), unit.std(1)
        varies = unit_std > 1e-6 * unit_std.amax().clamp_min(1e-30)
        offset = torch.where(varies, unit_mean.abs() / unit_std.clamp_min(1e-30), torch.zeros_like(unit_mean))
        measured["input.offset"] = offset.amax()[None]
        if clean.dim() == 2 and clean.shape[1] >= 2:
            median = torch.where(varies, unit_std, torch.nan).nanmedian()
            measured["input.feature_spread"] = (unit_std.amax() / median)[None]
    return measured
