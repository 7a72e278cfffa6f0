"""Updates that rounding throws away: half-precision weights that a step with a gradient leaves as they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import Measured
from nndoctor.probes.sketch import local

MOST_TENSORS = 32
"""Weights of an optimizer that are looked at, spread over the model: the cost must not grow with it."""

ELEMENTS = 256
"""Elements looked at of each: an estimate of a share to within 0.06 (two standard errors)."""

HALF = (torch.bfloat16, torch.float16)


@dataclass
class _Before:
    """The looked-at elements before a step, one after the other; all of shape (elements,).

    Args:
        params: the weights they are of. owners: which of them each element is of, as an index into `params`.
        weights, moves: their values; True where the gradient is not zero.
    """

    params: list[torch.nn.Parameter]
    owners: torch.Tensor
    weights: torch.Tensor
    moves: torch.Tensor


class PrecisionProbe:
    """Share of the elements of bfloat16 and float16 matrices that had a gradient and yet kept their value."""

    name = "precision"
    tier = "parameters"
    signals = ("param.update.lost",)

    def __init__(self) -> None:
        self._index: ModelIndex | None = None
        self._before: list[_Before] = []
        self._lost: list[tuple[list[int], torch.Tensor]] = []

    def attach(self, index: ModelIndex) -> None:
        self._index = index

    def detach(self) -> None:
        self._index = None
        self._before, self._lost = [], []

    def begin_step(self, step: int, sampled: bool) -> None:
        self._before, self._lost = [], []

    @torch.no_grad()
    def gradients_ready(self, optimizer: torch.optim.Optimizer) -> None:
        assert self._index is not None
        self._before = []
        chosen = [
            p
            for group in optimizer.param_groups
            if group.get("lr") != 0
            for p in group["params"]
            if id(p) in self._index.param_numbers and _can_be_looked_at(p)
        ]
        chosen = chosen[:: max(1, -(-len(chosen) // MOST_TENSORS))]
        for device in dict.fromkeys(p.device for p in chosen):
            params = [p for p in chosen if p.device == device]
            counts = torch.tensor([min(ELEMENTS, -(-local(p).numel() // _stride(p))) for p in params], device=device)
            self._before.append(
                _Before(
                    params=params,
                    owners=torch.repeat_interleave(torch.arange(len(params), device=device), counts),
                    weights=_elements(params, params),
                    moves=_elements([p.grad for p in params if p.grad is not None], params) != 0,
                )
            )

    @torch.no_grad()
    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        assert self._index is not None
        for before in self._before:
            kept = (_elements(before.params, before.params) == before.weights) & before.moves
            zeros = torch.zeros(len(before.params), device=kept.device)
            lost = zeros.index_add(0, before.owners, kept.float())
            moves = zeros.index_add(0, before.owners, before.moves.float())
            # A weight without any gradient says nothing: 0 / 0 is NaN, and NaN is not measured.
            self._lost.append(([self._index.param_numbers[id(p)] for p in before.params], lost / moves))  # (params,)
        self._before = []

    def collect(self) -> Mapping[str, Measured]:
        if not self._lost or self._index is None:
            return {}
        device = self._lost[0][1].device
        whole = torch.full((len(self._index.params),), torch.nan, device=device)
        for numbers, lost in self._lost:
            whole[torch.tensor(numbers, device=device)] = lost.to(device, non_blocking=True)
        return {"param.update.lost": whole}


def _can_be_looked_at(param: torch.nn.Parameter) -> bool:
    """A half-precision matrix with a dense gradient in the same order."""
    if param.dtype not in HALF or param.dim() < 2 or param.grad is None or param.numel() == 0:
        return False
    weight, gradient = local(param), local(param.grad)
    return weight.layout == gradient.layout == torch.strided and weight.is_contiguous() and gradient.is_contiguous()


def _stride(param: torch.Tensor) -> int:
    """Odd, so that it does not run along the columns of a matrix."""
    return max(1, local(param).numel() // ELEMENTS) | 1


def _elements(tensors: Sequence[torch.Tensor], like: Sequence[torch.Tensor]) -> torch.Tensor:
    """At most 256 evenly spaced elements of each of `tensors`, spaced as in `like`; copied, shape (elements,)."""
    return torch.cat([local(t.detach()).view(-1)[:: _stride(p)][:ELEMENTS] for t, p in zip(tensors, like, strict=True)])
