"""What the graph of the loss tells before backward frees it: the loss's kind, its mistakes, its reach.

The loss is found as a scalar handed to ``backward()``, whether a module, a function or inline code
made it; its graph is walked through ``grad_fn.next_functions`` (public) and the documented
``_saved_*`` attributes of loss nodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import Measured
from nndoctor.probes.data import last_tensor
from nndoctor.probes.nodes import children, name_of, saved, shape_of, skip_shape_only

PROBABILITIES = frozenset({"SoftmaxBackward0", "SigmoidBackward0"})
SOFTMAX_INSIDE = frozenset({"LogSoftmaxBackward0", "BinaryCrossEntropyWithLogitsBackward0"})
CLASS_LOSSES = frozenset({"NllLossBackward0", "NllLoss2DBackward0"})
DISTANCE_LOSSES = frozenset({"MseLossBackward0", "SmoothL1LossBackward0", "HuberLossBackward0"})
DISTANCE_INLINE = frozenset({"PowBackward0", "AbsBackward0"})
COMPARES = frozenset({"SubBackward0", "ExpandBackward0", "RsubBackward0"})

LARGEST_WALK = 200_000
"""Nodes after which a walk gives up and says so, instead of stalling the step."""


@dataclass(frozen=True)
class LossGraph:
    """What one walk over the graph of a loss found.

    Args:
        kind: the loss as a person calls it (``cross entropy``), ``custom`` where no known node ends the graph.
        reached: ``id`` of every parameter that gets a gradient from this loss.
        softmax_twice: probabilities are fed to a loss that makes probabilities itself.
        broadcast: elements compared over elements predicted, 1.0 where nothing broadcast.
        classes: number of classes of a cross entropy.
        target: what the loss compares with, where the loss node keeps it.
        regression: the loss is a distance between real numbers.
        complete: False if the graph was too large to walk to its end.
    """

    kind: str
    reached: frozenset[int]
    softmax_twice: bool
    broadcast: float
    classes: int | None
    target: torch.Tensor | None
    regression: bool
    complete: bool


def broadcast_factor(node: Any) -> float:
    """Elements of the comparison over elements of its prediction, if (N, 1) and (N,) met at `node`, else 1.

    Only the exact pattern counts: a square (N, N) made from one operand of N elements that was not
    unsqueezed on purpose, against an operand without gradient. Differences of all pairs of outputs
    have gradients on both sides.
    """
    out = shape_of(node)
    fed = list(children(node))
    if out is None or len(out) != 2 or out[0] != out[1] or out[0] < 2 or len(fed) != 1:
        return 1.0
    prediction = shape_of(fed[0])
    made_of_one_row = prediction in ((out[0],), (out[0], 1), (1, out[0]))
    return float(out[0]) if made_of_one_row and name_of(fed[0]) != "UnsqueezeBackward0" else 1.0


def walk(loss: torch.Tensor) -> LossGraph:
    """Walk the graph of `loss` once; touches no data and changes nothing."""
    reached: set[int] = set()
    seen: set[int] = set()
    kinds: set[str] = set()
    softmax_twice, broadcast = False, 1.0
    classes: int | None = None
    target: torch.Tensor | None = None
    keep: list[Any] = []  # nodes are proxies: an id may be used again once its proxy is gone
    stack: list[Any] = [loss.grad_fn] if loss.grad_fn is not None else []
    while stack and len(seen) < LARGEST_WALK:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        keep.append(node)
        name = name_of(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            reached.add(id(variable))
            continue
        if name in SOFTMAX_INSIDE:
            fed = skip_shape_only(next(children(node), node))
            softmax_twice = softmax_twice or name_of(fed) in PROBABILITIES
        if name in COMPARES:
            broadcast = max(broadcast, broadcast_factor(node))
        if name in CLASS_LOSSES or name in DISTANCE_LOSSES or name.startswith("BinaryCrossEntropy"):
            kinds.add(name)
            if target is None:
                target = saved(node, "_saved_target")
            if name in CLASS_LOSSES:
                scores = saved(node, "_saved_self")
                classes = int(scores.shape[1 if scores.dim() > 1 else 0]) if isinstance(scores, torch.Tensor) else None
        elif name in DISTANCE_INLINE and len(seen) < 12:
            kinds.add(name)
        stack.extend(children(node))
    return LossGraph(
        kind=_kind(kinds),
        reached=frozenset(reached),
        softmax_twice=softmax_twice,
        broadcast=broadcast,
        classes=classes,
        target=target.detach() if isinstance(target, torch.Tensor) else None,
        regression=bool(kinds) and not kinds & CLASS_LOSSES and bool(kinds & (DISTANCE_LOSSES | DISTANCE_INLINE)),
        complete=not stack,
    )


def _kind(nodes: set[str]) -> str:
    names = {
        "NllLossBackward0": "cross entropy",
        "NllLoss2DBackward0": "cross entropy",
        "MseLossBackward0": "mean squared error",
        "SmoothL1LossBackward0": "smooth L1",
        "HuberLossBackward0": "Huber",
        "BinaryCrossEntropyWithLogitsBackward0": "binary cross entropy with logits",
        "BinaryCrossEntropyBackward0": "binary cross entropy",
        "PowBackward0": "squared error (inline)",
        "AbsBackward0": "absolute error (inline)",
    }
    known = sorted({names[node] for node in nodes})
    return " + ".join(known) if known else "custom"


class GraphProbe:
    """Examines the graph of the loss on sampled steps: reach, double softmax, broadcasting, targets."""

    name = "loss graph"
    tier = "graph"
    signals = (
        "loss.softmax_twice", "loss.broadcast", "loss.reached_fraction", "loss.chance", "param.reached",
        "target.mean", "target.std", "target.min", "target.max", "target.nonfinite", "target.classes",
        "target.majority_fraction", "target.regression",
    )  # fmt: skip

    def __init__(self) -> None:
        self._index: ModelIndex | None = None
        self._graphs: list[LossGraph] = []
        self._reached: set[int] = set()
        self._sampled = False
        self.kind = ""
        self.targets_from_loader: torch.Tensor | None = None

    def attach(self, index: ModelIndex) -> None:
        self._index = index

    def detach(self) -> None:
        self._index = None
        self._graphs.clear()

    def begin_step(self, step: int, sampled: bool) -> None:
        self._sampled = sampled
        self._graphs = []

    def batch_loaded(self, loader: object, batch: object, training: bool) -> None:
        """Remember what may be the targets of a training batch."""
        if training:
            self.targets_from_loader = last_tensor(batch)

    def backward_begins(self, loss: object) -> None:
        """Walk the graph of a scalar loss; at most two losses per step are examined."""
        if self._sampled and len(self._graphs) < 2 and isinstance(loss, torch.Tensor) and loss.grad_fn is not None:
            with torch.no_grad():
                self._graphs.append(walk(loss))

    @torch.no_grad()
    def collect(self) -> Mapping[str, Measured]:
        if not self._sampled or not self._graphs or self._index is None:
            return {}
        graphs = self._graphs
        self._graphs = []
        for graph in graphs:
            self._reached |= graph.reached
        kinds = dict.fromkeys(g.kind for g in graphs)
        self.kind = ", ".join(kinds)
        trainable = [p for p in self._index.params if p.requires_grad]
        reached = sum(id(p) in self._reached for p in trainable)
        measured: dict[str, Measured] = {
            "loss.softmax_twice": float(any(g.softmax_twice for g in graphs)),
            "loss.broadcast": max(g.broadcast for g in graphs),
            "target.regression": float(any(g.regression for g in graphs)),
        }
        if all(g.complete for g in graphs):
            measured["param.reached"] = [float(id(p) in self._reached) for p in self._index.params]
            if trainable:
                measured["loss.reached_fraction"] = reached / len(trainable)
        classes = next((g.classes for g in graphs if g.classes), None)
        if classes:
            measured["loss.chance"] = math.log(classes)
        target = next((g.target for g in graphs if g.target is not None), None)
        if target is None:
            target = self.targets_from_loader
        if target is not None:
            measured.update(target_statistics(target))
        self.targets_from_loader = None
        return measured


def target_statistics(target: torch.Tensor, most: int = 4096) -> dict[str, Measured]:
    """Range, moments and class counts of a batch of targets; nothing waits for the device."""
    flat = target.reshape(-1)
    flat = flat[:: max(1, flat.numel() // most)]
    if flat.numel() == 0 or flat.is_complex():
        return {}
    if not flat.is_floating_point():
        ordered = flat.long().sort().values
        starts = torch.ones_like(ordered, dtype=torch.bool)
        starts[1:] = ordered[1:] != ordered[:-1]
        group = starts.cumsum(0) - 1
        sizes = torch.zeros(ordered.numel(), device=flat.device).index_add_(
            0, group, torch.ones(ordered.numel(), device=flat.device)
        )
        return {
            "target.min": ordered[:1].float(),
            "target.max": ordered[-1:].float(),
            "target.classes": starts.sum().float()[None],
            "target.majority_fraction": (sizes.max() / ordered.numel())[None],
        }
    values = flat.float()
    finite = torch.isfinite(values)
    clean = torch.where(finite, values, torch.zeros_like(values))
    count = finite.sum().clamp_min(1)
    mean = clean.sum() / count
    variance = (torch.where(finite, (values - mean) ** 2, torch.zeros_like(values))).sum() / count
    return {
        "target.mean": mean[None],
        "target.std": variance.sqrt()[None],
        "target.min": torch.where(finite, values, torch.inf).amin()[None],
        "target.max": torch.where(finite, values, -torch.inf).amax()[None],
        "target.nonfinite": (~finite).sum().float()[None],
    }
