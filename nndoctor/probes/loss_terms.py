"""The terms of a composite loss, told apart in its graph, and how hard each of them pulls where they meet.

Terms are the summands of the scalar handed to ``backward()``. Where the graphs of two of them meet (the outputs, a
shared trunk, a weight), what each one passes down is measured by hooks on the nodes right above, during
the backward pass that runs anyway: no gradient is computed twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import Measured
from nndoctor.probes.loss_contract import BINARY_LOSSES, CLASS_LOSSES, DISTANCES, LAYERS
from nndoctor.probes.nodes import children, name_of, saved_integer, saved_tensor, shape_of

PLACE = "loss"
MOST_TERMS = 6
MOST_SUMMANDS = 400
PENALTY = "penalty on weights"
MOST_MEETINGS = 48
LARGEST_WALK = 20_000
DENSE_LOOKS = 20
SPARSE_EVERY = 4
"""Sampled steps that are looked at: the first twenty, then every fourth."""

ADDS = frozenset({"AddBackward0", "SubBackward0"})
SCALES = frozenset({"MulBackward0", "DivBackward0", "NegBackward0"})
POLICY = frozenset(f"{name}Backward0" for name in ("Gather", "Minimum", "LogSoftmax", "Index", "Nll", "Logsumexp", "NllLoss"))
"""Operations of terms that are tasks of their own (policies, contrasts), although no target can be seen."""

NAN = float("nan")


@dataclass(frozen=True)
class Term:
    """One summand of a loss.

    Args:
        nodes: its end in the graph; of a penalty that is added weight by weight, all of them.
        kind: what it is called: ``mean squared error``, ``cross entropy``, ``penalty on weights``, ``term``.
        compares: the node that holds outputs against targets; None where there is none.
        regularises: it has no targets and nothing that looks like a task.
    """

    nodes: tuple[Any, ...]
    kind: str
    compares: Any = None
    regularises: bool = False


def summands(root: Any) -> list[Any]:
    """The nodes of the terms of a loss, in the order in which they were written; one alone if it is no sum."""
    node = root
    while name_of(node) in SCALES and len(list(children(node))) == 1:
        node = next(children(node))
    fed = list(children(node))
    if name_of(node) in ADDS and len(fed) == 2 and all(_is_scalar(child) for child in fed):
        return [term for child in fed for term in summands(child)]
    if name_of(node) in ("SumBackward0", "MeanBackward0") and len(fed) == 1 and name_of(fed[0]) == "StackBackward0":
        stacked = list(children(fed[0]))
        return [term for child in stacked for term in summands(child)] if all(map(_is_scalar, stacked)) else [root]
    return [root]


def terms_of(root: Any) -> list[Term]:
    """The terms of a loss; penalties that are added weight by weight are one term, at the place of the first."""
    found: list[Term] = []
    for term in map(term_of, summands(root)[:MOST_SUMMANDS]):
        place = next((i for i, other in enumerate(found) if other.kind == term.kind == PENALTY), None)
        if place is None:
            found.append(term)
        else:
            found[place] = replace(found[place], nodes=(*found[place].nodes, *term.nodes))
    return found


def _is_scalar(node: Any) -> bool:
    shape = shape_of(node)
    return shape is not None and math.prod(shape) == 1


def term_of(node: Any) -> Term:
    """What kind of term ends in `node`, read off the operations up to the last layers."""
    names: set[str] = set()
    compares: Any = None
    seen: set[int] = set()
    waiting = [node]
    keep: list[Any] = []
    while waiting and len(seen) < LARGEST_WALK:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        keep.append(current)
        name = name_of(current)
        names.add(name)
        if name in CLASS_LOSSES | BINARY_LOSSES | DISTANCES:
            compares = compares or current
        if name not in LAYERS:
            waiting.extend(children(current))
    if compares is not None:
        return Term((node,), _KINDS.get(name_of(compares), "binary cross entropy"), compares)
    if "AccumulateGrad" in names and not names & LAYERS:
        return Term((node,), PENALTY, regularises=True)
    return Term((node,), "term", regularises=not names & POLICY and not _inline_distance(node))


_KINDS: Mapping[str, str] = {
    "NllLossBackward0": "cross entropy",
    "NllLoss2DBackward0": "cross entropy",
    "MseLossBackward0": "mean squared error",
    "SmoothL1LossBackward0": "smooth L1",
    "HuberLossBackward0": "Huber",
}


def _inline_distance(node: Any, depth: int = 0) -> bool:
    """Whether a difference to something without gradient is squared or made positive: targets, most likely."""
    if name_of(node) in ("PowBackward0", "AbsBackward0"):
        difference = next(children(node), None)
        return difference is not None and name_of(difference) in ("SubBackward0", "RsubBackward1") and len(list(children(difference))) == 1
    return depth < 4 and any(_inline_distance(child, depth + 1) for child in children(node))


def unexplained(term: Term) -> Tensor | float:
    """The value of a term that compares with targets, over that of the best constant answer; NaN where unknown.

    The variance of the targets for squared distances, ln(classes) for a cross entropy, both by their means.
    """
    node = term.compares
    outputs, targets = (saved_tensor(node, f"_saved_{name}") if node is not None else None for name in ("self", "target"))
    if outputs is None or targets is None or targets.numel() == 0:
        return NAN
    name = name_of(node)
    if name in CLASS_LOSSES:
        classes = outputs.shape[1] if outputs.dim() > 1 else outputs.shape[0]
        ignored = saved_integer(node, "_saved_ignore_index")
        value = F.nll_loss(outputs, targets, ignore_index=-100 if ignored is None else ignored)
        return value / math.log(classes) if classes > 1 else NAN
    if name == "BinaryCrossEntropyWithLogitsBackward0":
        return F.binary_cross_entropy_with_logits(outputs, targets) / math.log(2)
    if name == "BinaryCrossEntropyBackward0":
        return F.binary_cross_entropy(outputs.float(), targets.float()) / math.log(2)
    spread = targets.float().var(0, correction=0).mean() if len(targets) > 1 else targets.float().var(correction=0)
    return (outputs.float() - targets.float()).square().mean() / spread.clamp_min(1e-12)


@dataclass(frozen=True)
class Meeting:
    """An edge by which one term alone reaches something that others reach too.

    Args:
        term: number of the term.
        node: the node right above, which belongs to that term only.
        slot: which of its inputs.
    """

    term: int
    node: Any
    slot: int


def meetings(terms: list[Term]) -> list[Meeting]:
    """Where the graphs of the terms meet; empty where they do not, or the graph is too large."""
    nodes: dict[int, Any] = {}
    owners: dict[int, int] = {}
    for number, term in enumerate(terms):
        seen: set[int] = set()
        waiting = list(term.nodes)
        while waiting:
            node = waiting.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            nodes[id(node)] = node
            owners[id(node)] = owners.get(id(node), 0) | 1 << number
            waiting.extend(children(node))
            if len(seen) > LARGEST_WALK:
                return []
    found: dict[int, list[Meeting]] = {}
    for key, owner in owners.items():
        if owner & (owner - 1):
            continue  # of several terms
        for slot, (child, _) in enumerate(nodes[key].next_functions):
            if child is not None and owners[id(child)] != owner:
                found.setdefault(id(child), []).append(Meeting(owner.bit_length() - 1, nodes[key], slot))
    shared = [group for group in found.values() if len({meeting.term for meeting in group}) > 1]
    stride = -(-len(shared) // MOST_MEETINGS)
    return [meeting for group in shared[::stride] for meeting in group] if shared else []


@dataclass
class _Look:
    """What one step shows of the terms."""

    terms: list[Term]
    layers: list[int]
    unexplained: list[Tensor | float]
    handles: list[Any] = field(default_factory=list)
    squares: list[tuple[int, Tensor]] = field(default_factory=list)


class LossTermsProbe:
    """Measures the terms of a loss against each other, on some of the sampled steps."""

    name = "loss terms"
    tier = "graph"
    signals = ("loss.terms", "term.gradient", "term.regularises", "term.unexplained")

    def __init__(self) -> None:
        self._index: ModelIndex | None = None
        self._looks = 0
        self._look: _Look | None = None
        self._count = 0

    def attach(self, index: ModelIndex) -> None:
        self._index = index

    def detach(self) -> None:
        self._end()
        self._index = None

    def begin_step(self, step: int, sampled: bool) -> None:
        self._end()
        self._count = 0
        self._looks += sampled

    def _end(self) -> None:
        if self._look is not None:
            for handle in self._look.handles:
                handle.remove()
        self._look = None

    @torch.no_grad()
    def backward_begins(self, loss: object) -> None:
        """Tell the terms apart and listen to what they pass down; the first loss of the step counts."""
        if self._index is None or self._count or not isinstance(loss, Tensor) or loss.grad_fn is None:
            return
        self._count = len(summands(loss.grad_fn))
        if self._count < 2 or (self._looks > DENSE_LOOKS and self._looks % SPARSE_EVERY):
            return
        terms = terms_of(loss.grad_fn)
        if not 2 <= len(terms) <= MOST_TERMS:
            return
        layers = [self._index.functional_layer(PLACE, f"term {i} ({term.kind})") for i, term in enumerate(terms, 1)]
        look = self._look = _Look(terms, layers, [unexplained(term) for term in terms])
        for meeting in meetings(terms):
            look.handles.append(meeting.node.register_hook(_listen(look.squares, meeting)))

    def backward_ended(self) -> None:
        if self._look is not None:
            for handle in self._look.handles:
                handle.remove()
            self._look.handles.clear()

    @torch.no_grad()
    def collect(self) -> Mapping[str, Measured]:
        look, count, index = self._look, self._count, self._index
        self._end()
        measured: dict[str, Measured] = {"loss.terms": float(count)} if count else {}
        if look is None or index is None:
            return measured
        size = len(index.layers)
        regularises = dict(zip(look.layers, (float(term.regularises) for term in look.terms), strict=True))
        measured["term.regularises"] = [regularises.get(n, NAN) for n in range(size)]
        measured["term.unexplained"] = _at(look.layers, look.unexplained, size)
        if look.squares:
            totals: list[Tensor | float] = [
                torch.stack([square for term, square in look.squares if term == number]).sum().sqrt()
                if any(term == number for term, _ in look.squares)
                else NAN
                for number in range(len(look.terms))
            ]
            measured["term.gradient"] = _at(look.layers, totals, size)
        return measured


def _listen(squares: list[tuple[int, Tensor]], meeting: Meeting) -> Callable[[Any, Any], None]:
    """A hook that notes the squared size of what passes the meeting's edge; it changes nothing."""

    def passed(gradients: Any, _: Any) -> None:
        with torch.no_grad():
            gradient = gradients[meeting.slot]
            if isinstance(gradient, Tensor) and gradient.layout == torch.strided:
                squares.append((meeting.term, gradient.detach().float().square().sum()))

    return passed


def _at(layers: list[int], values: list[Tensor | float], size: int) -> Tensor:
    """Values at the numbers of their layers, NaN elsewhere, (size,)."""
    device = next((v.device for v in values if isinstance(v, Tensor) and v.is_cuda), None)
    column = torch.stack([torch.as_tensor(v, dtype=torch.float32).to(device, non_blocking=True).reshape(()) for v in values])
    numbers = torch.tensor(layers).to(device, non_blocking=True)
    return torch.full((size,), NAN, device=device).index_copy_(0, numbers, column)
