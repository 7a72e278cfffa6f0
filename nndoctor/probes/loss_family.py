"""What kind of loss a graph belongs to: a comparison of outputs with each other, a policy's, a sampled code's...

The *tail* is the part of the graph that lies between the loss and the model's last layers: walking from the loss, it
ends wherever a node has a weight of its own. What the tail is made of tells losses apart, whoever wrote them and however.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from nndoctor.probes.loss_nodes import CROSS_ENTROPIES
from nndoctor.probes.nodes import children, name_of, saved, saved_tensor

LARGEST_WALK = 50_000
"""Nodes after which a walk gives up: the graph then tells nothing."""

LARGEST_TAIL = 4000

SMALLEST_SIMILARITY = 4
"""Rows of a matrix of outputs against each other; two classes by two samples would be square as well."""

MOST_FACTORS = 64  # log-probabilities times advantage, written as a list with one entry per move

LAYERS = ("Addmm", "Convolution", "ConvolutionOverrideable", "MkldnnConvolution", "CudnnConvolution", "Linear")
DISTANCES = frozenset({"MseLossBackward0", "SmoothL1LossBackward0", "HuberLossBackward0"})
BINARY = frozenset({"BinaryCrossEntropyWithLogitsBackward0", "BinaryCrossEntropyBackward0"})


def backwards(*names: str) -> frozenset[str]:
    """The nodes of functions by name: ``Sum`` is ``SumBackward0`` and ``SumBackward1``."""
    return frozenset(f"{name}Backward{i}" for name in names for i in range(4))


SHAPES = backwards(
    "View", "UnsafeView", "ReshapeAlias", "Transpose", "T", "Permute", "Slice", "Select", "ToCopy", "Clone", "Alias",
    "Unsqueeze", "Squeeze", "Contiguous", "Flatten", "Expand", "Split", "SplitWithSizes", "Unbind", "Chunk",
)  # fmt: skip
POINTWISE = backwards("Mul", "Div", "Neg", "Add", "Sub", "Rsub", "Exp", "Clamp", "ClampMin", "ClampMax", "Where", "MaskedFill")
ROWS = backwards("Stack", "Cat", "Minimum", "Maximum", "Log", "LogSoftmax", "Logsumexp")
SCALES = backwards("Exp", "Softplus", "Sqrt")
TOWARDS_SCALE = backwards("Mul", "Div", "Clamp", "Add") | SHAPES
SOFTMAXES = backwards("LogSoftmax", "Logsumexp", "LogSigmoid", "Exp")
NORMS = backwards("Norm", "LinalgVectorNorm", "Pow", "Sqrt", "Cdist", "Sum")
NEUTRAL = SHAPES | backwards("Div", "ClampMin", "Mul", "Expand")
"""What turns an output into a point on the sphere, and changes of shape."""


@dataclass(frozen=True)
class LossFamily:
    """What one look at the graph of a loss found.

    Args:
        leaves: ``id`` of every tensor that gets a gradient; None where the graph was too large to walk.
        kinds: names of the nodes of the tail.
        similarity: a softmax of outputs against each other, rows by rows.
        correlation: a square product of outputs with each other that no softmax follows.
        compares: two outputs of the same layers are subtracted or multiplied, and measured.
        measures: norms, squares or sums of a dimension are in the tail.
        sampled: a code is drawn from a mean and a scale, and the loss sees the scale as well.
        chosen: a distance to one output of several, chosen by an index.
        factors: constants by which log-probabilities are multiplied.
        distance: the target of a distance between real numbers.
        binary: the target of a binary cross entropy.
        soft: a log-softmax is weighted with constants.
        inline: a difference from a constant is squared, or its size taken.
    """

    leaves: frozenset[int] | None
    kinds: frozenset[str] = frozenset()
    similarity: bool = False
    correlation: bool = False
    compares: bool = False
    measures: bool = False
    sampled: bool = False
    chosen: bool = False
    factors: tuple[torch.Tensor, ...] = ()
    distance: torch.Tensor | None = None
    binary: torch.Tensor | None = None
    soft: bool = False
    inline: bool = False


def family_of(loss: torch.Tensor) -> LossFamily:
    """Look at the graph of `loss` once; reads no values and changes nothing."""
    whole = _walk(loss.grad_fn)
    if whole is None:
        return LossFamily(None)
    leaves = frozenset(id(leaf) for leaf in map(_leaf, whole) if leaf is not None)
    inside, edge = _tail(loss.grad_fn)
    nodes = [*inside, *edge]
    kinds = frozenset(map(name_of, nodes))
    square = any(_is_similarity(node) for node in nodes)
    return LossFamily(
        leaves=leaves,
        kinds=kinds,
        similarity=square and any(_is_softmax(node) for node in inside),
        correlation=square and not any(_is_softmax(node) for node in inside),
        compares=any(_compares(node) for node in nodes),
        measures=bool(kinds & NORMS),
        sampled=_is_sampled(whole, nodes),
        chosen=any(_is_chosen(node) for node in inside),
        factors=tuple(_factors(inside)),
        distance=_target(inside, DISTANCES),
        binary=_target(inside, BINARY),
        soft=any(_is_soft(node) for node in inside),
        inline=any(_is_inline_distance(node) for node in inside),
    )


def _walk(start: Any) -> list[Any] | None:
    found: dict[Any, None] = {}
    stack = [start] if start is not None else []
    while stack:
        node = stack.pop()
        if node in found:
            continue
        found[node] = None
        if len(found) > LARGEST_WALK:
            return None
        stack.extend(children(node))
    return list(found)


def _leaf(node: Any) -> torch.Tensor | None:
    variable = getattr(node, "variable", None)
    return variable if isinstance(variable, torch.Tensor) else None


def _shape(node: Any) -> tuple[int, ...]:
    """Shape of what `node` made in the forward pass; empty for a scalar, and where torch does not tell."""
    metadata = getattr(node, "_input_metadata", None)
    try:
        return tuple(int(size) for size in metadata[0].shape) if metadata else ()
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return ()


def _tail(start: Any) -> tuple[list[Any], list[Any]]:
    """The nodes between the loss and the layers, and the nodes of the layers at its edge."""
    inside: dict[Any, None] = {}
    edge: dict[Any, None] = {}
    queue = deque([start] if start is not None else [])
    while queue and len(inside) + len(edge) < LARGEST_TAIL:
        node = queue.popleft()
        if node in inside or node in edge:
            continue
        if _leaf(node) is not None:
            continue
        if _is_layer(node):
            edge[node] = None
            continue
        inside[node] = None
        queue.extend(children(node))
    return list(inside), list(edge)


def _is_layer(node: Any) -> bool:
    """Whether `node` uses a weight: a parameter that is more than a number, or what torch makes layers of."""
    if name_of(node).removesuffix("Backward0") in LAYERS:
        return True
    return any(_weight_of(child) is not None for child in children(node))


def _weight_of(node: Any) -> torch.Tensor | None:
    """The parameter that `node` stands for, itself or transposed."""
    for _ in range(3):
        leaf = _leaf(node)
        if leaf is not None:
            return leaf if leaf.dim() > 0 else None
        if name_of(node) not in SHAPES:
            return None
        following = next(children(node), None)
        if following is None:
            return None
        node = following
    return None


def _both(node: Any) -> tuple[Any, Any] | None:
    """The two operands of `node`, where it has two and both have gradients."""
    following = [child for child, _ in node.next_functions]
    if len(following) != 2 or following[0] is None or following[1] is None:
        return None
    return following[0], following[1]


def _is_similarity(node: Any) -> bool:
    """Outputs (n, features) times outputs (features, n)."""
    shape = _shape(node)
    if name_of(node) != "MmBackward0" or len(shape) != 2 or shape[0] != shape[1] or shape[0] < SMALLEST_SIMILARITY:
        return False
    operands = _both(node)
    return operands is not None and all(_weight_of(operand) is None for operand in operands)


def _is_softmax(node: Any) -> bool:
    shape = _shape(node)
    if name_of(node) not in SOFTMAXES or not shape or shape[0] < SMALLEST_SIMILARITY:
        return False
    if name_of(node).startswith("Logsumexp"):
        return True
    return len(shape) == 2 and shape[0] <= shape[1] + 1 and shape[1] >= SMALLEST_SIMILARITY


def _compares(node: Any) -> bool:
    """Whether `node` holds two points against each other that come from one and the same layer, in two calls or rows."""
    if name_of(node) not in backwards("Sub", "Mul") or len(_shape(node)) < 2 or _shape(node)[-1] < 2:
        return False
    operands = _both(node)
    if operands is None:
        return False
    first, second = (_source(operand) for operand in operands)
    if first is None or second is None or not _weights(first) & _weights(second):
        return False
    return first is not second or all(_takes_rows(operand) for operand in operands)


def _source(node: Any) -> Any | None:
    """The layer that made a point, behind changes of shape and scale."""
    for _ in range(12):
        if _is_layer(node):
            return node
        if name_of(node) not in NEUTRAL and name_of(node) not in backwards("Index", "IndexSelect", "AddBackward"):
            return None
        following = next(children(node), None)
        if following is None:
            return None
        node = following
    return None


def _weights(layer: Any) -> set[int]:
    return {id(weight) for weight in map(_weight_of, children(layer)) if weight is not None}


def _takes_rows(node: Any) -> bool:
    """Whether `node` picks rows of a batch: neighbouring pixels or steps of one output are no pair."""
    for _ in range(6):
        if name_of(node) in backwards("Index", "IndexSelect"):
            return True
        if name_of(node) in backwards("Slice", "Split", "SplitWithSizes", "Chunk", "Select", "Unbind"):
            return saved(node, "_saved_dim") in (0, None)
        following = next(children(node), None)
        if name_of(node) not in NEUTRAL or following is None:
            return False
        node = following
    return False


def _chain(node: Any, through: Collection[str], most: int) -> Iterator[Any]:
    """`node` and what lies behind nodes of the names in `through`, breadth first."""
    queue: deque[Any] = deque([node])
    seen: set[Any] = set()
    while queue and len(seen) < most:
        node = queue.popleft()
        if node in seen:
            continue
        seen.add(node)
        yield node
        if name_of(node) in through:
            queue.extend(islice(children(node), 2))  # of a list of many, all are alike


def _constant(node: Any) -> tuple[Any, torch.Tensor] | None:
    """The operand with gradient and the one without, of a product of the two."""
    if not name_of(node).startswith("MulBackward"):
        return None
    following = [child for child, _ in node.next_functions]
    if len(following) != 2 or (following[0] is None) == (following[1] is None):
        return None
    value = saved_tensor(node, "_saved_self" if following[0] is None else "_saved_other")
    child = following[1] if following[0] is None else following[0]
    return (child, value) if value is not None and value.is_floating_point() else None


def _factors(inside: Collection[Any]) -> Iterator[torch.Tensor]:
    """Constants that the tail multiplies log-probabilities with."""
    given = 0
    for node in inside:
        found = _constant(node)
        if found is None or given >= MOST_FACTORS or not _is_log_probability(found[0]):
            continue
        given += 1
        yield found[1]


def _is_log_probability(node: Any) -> bool:
    """Whether `node` comes of the log-probability of something chosen: gathered from a softmax, or a bell curve's."""
    for found in _chain(node, POINTWISE | ROWS | SHAPES | backwards("Sum"), 40):
        name = name_of(found)
        if name in CROSS_ENTROPIES:
            return True
        if name in backwards("Gather", "Index", "Select"):
            behind = _chain(found, POINTWISE | ROWS | SHAPES | backwards("Gather", "Index"), 12)
            if any(name_of(n) in backwards("LogSoftmax", "Logsumexp", "Softmax") for n in behind):
                return True
        if name in backwards("Neg", "Div") and any(name_of(child) in backwards("Pow") for child in children(found)):
            return True
    return False


def _is_chosen(node: Any) -> bool:
    """A distance of one output per row, picked by index, to something else."""
    inline = name_of(node) in backwards("Sub", "Rsub") and _both(node) is None
    predicted = next(children(node), None)
    if predicted is None or not (inline or name_of(node) in DISTANCES):
        return False
    for found in _chain(predicted, SHAPES, 6):
        if name_of(found) in backwards("Gather", "Index"):
            source = next(children(found), None)
            before, after = _shape(source) if source is not None else (), _shape(found)
            per_row = len(before) == 2 and before[1] > 1 and bool(after) and after[0] == before[0] and after != before
            return per_row and (len(after) == 1 or after[1] == 1)
    return False


def _is_soft(node: Any) -> bool:
    found = _constant(node)
    return found is not None and name_of(found[0]) in backwards("LogSoftmax") and found[1].dim() >= 2


def _is_inline_distance(node: Any) -> bool:
    if name_of(node) not in backwards("Pow", "Abs"):
        return False
    difference = next(children(node), None)
    return name_of(difference) in backwards("Sub", "Rsub") and _both(difference) is None and bool(_shape(difference))


def _target(inside: Collection[Any], names: Collection[str]) -> torch.Tensor | None:
    for node in inside:
        if name_of(node) in names:
            target = saved_tensor(node, "_saved_target")
            if target is not None:
                return target
    return None


def _is_sampled(whole: Collection[Any], tail: Collection[Any]) -> bool:
    """Mean plus scale times noise somewhere in the model, and the tail sees where the scale comes from."""
    seen = set(tail)
    for node in whole:
        operands = _both(node) if name_of(node) in backwards("Add") else None
        for product, mean in (operands, operands[::-1]) if operands is not None else ():
            found = _constant(product)
            if found is None or found[1].dim() < 2 or _weight_of(mean) is not None:
                continue
            if tuple(found[1].shape) != _shape(product):
                continue
            scale = next((n for n in _chain(found[0], TOWARDS_SCALE, 6) if name_of(n) in SCALES), None)
            if scale is not None and any(n in seen for n in _chain(scale, SCALES | TOWARDS_SCALE, 12)):
                return True
    return False
