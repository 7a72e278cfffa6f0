"""Operations of the loss at the edge of their domain: the root of nought, the logarithm of nought, nought over nought.

What they keep for backward is looked at right before backward runs, so the step that breaks the weights is
still whole. Only the part of the graph between the loss and the last layers is walked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import Measured
from nndoctor.probes.loss_contract import loss_region
from nndoctor.probes.nodes import name_of, saved, saved_tensor

MOST_OPERATIONS = 12
MOST_ELEMENTS = 1 << 18
PLACE = "loss"
NAN = float("nan")


@dataclass(frozen=True)
class Risk:
    """An operation whose value or derivative is not finite somewhere.

    Args:
        name: as one writes it.
        kept: what the node keeps to tell.
        slope: from that, the size of the derivative: infinite at the edge.
    """

    name: str
    kept: str
    slope: Callable[[Tensor], Tensor]


RISKS: Mapping[str, Risk] = {
    "SqrtBackward0": Risk("sqrt", "_saved_result", lambda root: 0.5 / root),
    "RsqrtBackward0": Risk("rsqrt", "_saved_result", lambda result: 0.5 * result**3),
    "LogBackward0": Risk("log", "_saved_self", lambda value: 1 / value.clamp_min(0)),
    "Log2Backward0": Risk("log2", "_saved_self", lambda value: 1 / value.clamp_min(0)),
    "Log10Backward0": Risk("log10", "_saved_self", lambda value: 1 / value.clamp_min(0)),
    "Log1PBackward0": Risk("log1p", "_saved_self", lambda value: 1 / (1 + value).clamp_min(0)),
    "XlogyBackward0": Risk("xlogy", "_saved_other", lambda value: 1 / value.clamp_min(0)),
    "DivBackward0": Risk("division", "_saved_other", lambda divisor: 1 / divisor.abs()),
    "ReciprocalBackward0": Risk("reciprocal", "_saved_result", lambda result: result.square()),
    "ExpBackward0": Risk("exp", "_saved_result", lambda result: result),
    "AcosBackward0": Risk("acos", "_saved_self", lambda value: (1 - value.square()).clamp_min(0).rsqrt()),
    "AsinBackward0": Risk("asin", "_saved_self", lambda value: (1 - value.square()).clamp_min(0).rsqrt()),
}


@dataclass(frozen=True)
class Edge:
    """How near to its edge an operation was.

    Args:
        count: elements whose derivative is not finite, a 0-d tensor or a number.
        slope: the largest finite derivative.
    """

    name: str
    count: Tensor | float
    slope: Tensor | float


def edges(region: list[Any]) -> list[Edge]:
    """Every operation of the loss that has an edge, and how near to it its arguments came."""
    found: list[Edge] = []
    for node in region:
        edge = edge_of(node)
        if edge is not None:
            found.append(edge)
        if len(found) >= MOST_OPERATIONS:
            break
    return found


def edge_of(node: Any) -> Edge | None:
    """How near to its edge the operation of `node` was; None if it has none or does not tell."""
    name = name_of(node)
    if name == "MeanBackward0":
        return Edge("mean", float(saved(node, "_saved_self_sym_numel") == 0), 0.0)
    if name in ("NllLossBackward0", "NllLoss2DBackward0") and saved(node, "_saved_reduction") == 1:
        weight = saved_tensor(node, "_saved_total_weight")  # nought where every target is ignored: a mean of nothing
        return None if weight is None else Edge("mean", (weight == 0).float().sum(), 0.0)
    risk = RISKS.get(name) or _power(node, name)
    kept = saved_tensor(node, risk.kept) if risk is not None else None
    if risk is None or kept is None or kept.numel() == 0 or not kept.is_floating_point():
        return None
    values = kept.reshape(-1)
    values = values[:: -(-values.numel() // MOST_ELEMENTS)].float()
    slope = risk.slope(values).abs()
    finite = torch.isfinite(slope)
    at_edge = ~finite & ~torch.isnan(values)  # a NaN came from elsewhere
    return Edge(risk.name, at_edge.float().sum(), torch.where(finite, slope, 0).amax())


def _power(node: Any, name: str) -> Risk | None:
    exponent = saved(node, "_saved_exponent") if name == "PowBackward0" else None
    if not isinstance(exponent, (int, float)) or exponent >= 1 or exponent == 0:
        return None
    return Risk("power", "_saved_self", lambda value: abs(exponent) * value.clamp_min(0) ** (exponent - 1))


class RiskyOperationsProbe:
    """Tells on sampled steps which operation of the loss is at its edge, as a layer called ``loss/sqrt``."""

    name = "risky operations"
    tier = "graph"
    signals = ("op.edge", "op.slope")

    def __init__(self) -> None:
        self._index: ModelIndex | None = None
        self._found: list[tuple[int, Edge]] = []

    def attach(self, index: ModelIndex) -> None:
        self._index = index

    def detach(self) -> None:
        self._index = None
        self._found = []

    def begin_step(self, step: int, sampled: bool) -> None:
        self._found = []

    @torch.no_grad()
    def backward_begins(self, loss: object) -> None:
        if self._index is None or not isinstance(loss, Tensor) or loss.grad_fn is None:
            return
        for edge in edges(loss_region(loss)):
            self._found.append((self._index.functional_layer(PLACE, edge.name), edge))

    @torch.no_grad()
    def collect(self) -> Mapping[str, Measured]:
        """The worst of each kind of operation; NaN for all other layers."""
        found, self._found = self._found, []
        if not found or self._index is None:
            return {}
        device = next((e.count.device for _, e in found if isinstance(e.count, Tensor) and e.count.is_cuda), None)
        numbers = torch.tensor([number for number, _ in found]).to(device, non_blocking=True)
        measured: dict[str, Measured] = {}
        for signal, values in (("op.edge", [e.count for _, e in found]), ("op.slope", [e.slope for _, e in found])):
            column = torch.stack([torch.as_tensor(v, dtype=torch.float32).to(device, non_blocking=True) for v in values])
            whole = torch.full((len(self._index.layers),), NAN, device=device)
            measured[signal] = whole.scatter_reduce_(0, numbers, column, "amax", include_self=False)
        return measured
