"""Whether positions that only fill up short sequences count in the loss.

Padding is told by its shape, not by how common it is: one index in a run at the end of most sequences, of different
length in each, and hardly anywhere else; the same in what enters the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import Measured
from nndoctor.probes.loss_contract import CLASS_LOSSES, loss_region
from nndoctor.probes.nodes import name_of, saved, saved_integer, saved_tensor

SHORTEST = 4  # positions of a sequence; below it there is no run to speak of
MOST_SEQUENCES = 64
MOST_CANDIDATES = 6
PADDED_ROWS = 0.5
STRAY = 0.01
"""Share of the other positions at which the index may occur and still be padding."""

DENSE_LOOKS = 10
SPARSE_EVERY = 8
"""Sampled steps that are looked at: the first ten, then every eighth; how batches are padded does not change."""

MASKING = frozenset(f"{name}Backward0" for name in ("Mul", "Index", "MaskedSelect", "MaskedFill", "IndexSelect", "Gather")) | {
    "WhereBackward0",
    "SWhereBackward0",
}


@dataclass(frozen=True)
class Run:
    """The run of one index at the end of sequences.

    Args:
        index: the index, a 0-d tensor.
        padding: whether it looks like padding, a 0-d boolean tensor.
    """

    index: torch.Tensor
    padding: torch.Tensor


def trailing_run(sequences: torch.Tensor) -> Run:
    """The most common last index of `sequences` (count, length), and whether it only fills them up."""
    index = sequences[:, -1].mode().values
    same = sequences == index
    lengths = same.flip(1).long().cumprod(1).sum(1)  # (count,)
    rest = (same.numel() - lengths.sum()).clamp_min(1)
    stray = (same.sum() - lengths.sum()) / rest
    rows = (lengths >= 2).float().mean()
    padding = (rows >= PADDED_ROWS) & (lengths.amax() > lengths.amin()) & (stray <= STRAY)
    return Run(index, padding)


def token_sequences(value: object, depth: int = 0) -> Iterator[torch.Tensor]:
    """Integer tensors (count, length) anywhere in a batch or in the arguments of a model."""
    if isinstance(value, torch.Tensor):
        integers = not value.is_floating_point() and not value.is_complex() and value.dtype != torch.bool
        if integers and value.dim() == 2 and value.layout == torch.strided and min(value.shape) >= 2 and max(value.shape) >= SHORTEST:
            yield value
    elif depth < 4 and isinstance(value, Mapping):
        for child in value.values():
            yield from token_sequences(child, depth + 1)
    elif depth < 4 and isinstance(value, (tuple, list)):
        for child in value:
            yield from token_sequences(child, depth + 1)


def both_ways(tokens: torch.Tensor) -> Iterator[torch.Tensor]:
    """`tokens` as sequences in rows, and as sequences in columns, at most 64 of each."""
    for sequences in (tokens, tokens.t()):
        if sequences.shape[1] >= SHORTEST and sequences.shape[0] >= 2:
            yield sequences[:MOST_SEQUENCES]


def padding_signals(loss: torch.Tensor, batch: list[torch.Tensor], inputs: list[torch.Tensor]) -> dict[str, Measured]:
    """Share of the positions in the loss that are padding, and its index.

    Args:
        batch: integer tensors that the loader gave.
        inputs: integer tensors that entered the model.
    """
    region = loss_region(loss)
    node = next((node for node in region if name_of(node) in CLASS_LOSSES), None)
    targets = saved_tensor(node, "_saved_target") if node is not None else None
    if node is None or targets is None or targets.numel() == 0:
        return {}
    if saved(node, "_saved_reduction") == 0 and any(name_of(other) in MASKING for other in region):
        return {"loss.padding_fraction": 0.0}  # weighted position by position
    # One target for each token or so: a class for each sequence is no position that could be padded.
    batch, inputs = ([t for t in tensors if t.numel() <= 2 * targets.numel()] for tensors in (batch, inputs))
    outside = [trailing_run(s) for tokens in inputs[:MOST_CANDIDATES] for s in both_ways(tokens)]
    loaded = [trailing_run(s) for tokens in batch[:MOST_CANDIDATES] for s in both_ways(tokens)]
    runs = loaded or outside
    if not runs:
        return {}
    index = torch.stack([run.index.to(targets.device, non_blocking=True).long() for run in runs])  # (runs,)
    padding = torch.stack([run.padding.to(targets.device, non_blocking=True) for run in runs])
    share = (targets.reshape(-1, 1) == index).float().mean(0)  # (runs,)
    counted = padding & (index != saved_integer(node, "_saved_ignore_index")) & ~_weightless(node, index)
    share = torch.where(counted, share, torch.zeros_like(share))
    best = share.argmax()
    entering = [run.padding.to(targets.device, non_blocking=True) for run in outside]
    return {
        "loss.padding_fraction": share.amax()[None],
        "loss.padding_index": index[best].float()[None],
        "loss.padded_inputs": torch.stack(entering).any().float()[None] if entering else 0.0,
    }


def _weightless(node: Any, index: torch.Tensor) -> torch.Tensor:
    """Which of the classes in `index` have the class weight 0."""
    weights = saved_tensor(node, "_saved_weight")
    if weights is None or weights.numel() == 0:
        return torch.zeros_like(index, dtype=torch.bool)
    return weights[index.clamp(0, len(weights) - 1)] == 0


class PaddingProbe:
    """Looks on sampled steps whether the classes in the loss are padding in part."""

    name = "padding"
    tier = "graph"
    signals = ("loss.padding_fraction", "loss.padding_index", "loss.padded_inputs")

    def __init__(self) -> None:
        self._batch: list[torch.Tensor] = []
        self._inputs: list[torch.Tensor] = []
        self._measured: dict[str, Measured] = {}
        self._sampled_steps = 0

    def attach(self, index: ModelIndex) -> None: ...

    def detach(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._batch, self._inputs, self._measured = [], [], {}

    def begin_step(self, step: int, sampled: bool) -> None:
        self._measured = {}
        self._sampled_steps += sampled

    def batch_loaded(self, loader: object, batch: object, training: bool) -> None:
        """Keep the integer tensors of a training batch until its step is over."""
        if training:
            self._batch = list(token_sequences(batch))

    def forward_begins(self, root: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Keep those that enter the model."""
        self._inputs = [*token_sequences(args), *token_sequences(kwargs)]

    @torch.no_grad()
    def backward_begins(self, loss: object) -> None:
        if self._sampled_steps > DENSE_LOOKS and self._sampled_steps % SPARSE_EVERY:
            return
        if not self._measured and isinstance(loss, torch.Tensor) and (self._batch or self._inputs):
            self._measured = padding_signals(loss, self._batch, self._inputs)

    def collect(self) -> Mapping[str, Measured]:
        measured = self._measured
        self._forget()
        return measured
