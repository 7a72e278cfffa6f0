"""Finds what a loss is made of close to its end: nodes of its graph by name, and the tensors they keep.

The graph is read through ``grad_fn.next_functions`` (public) and the documented ``_saved_*`` attributes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch

CROSS_ENTROPIES = frozenset({"NllLossBackward0", "NllLoss2DBackward0"})
IGNORED_BY_DEFAULT = -100


def name_of(node: Any) -> str:
    """``AddBackward0`` and kin."""
    return type(node).__name__


def inputs_of(node: Any) -> Iterator[Any]:
    """The nodes that made what `node` worked on, those with gradients."""
    return (child for child, _ in node.next_functions if child is not None)


def nodes_of(start: Any, most: int) -> Iterator[Any]:
    """The nodes behind `start`, it included, nearest first, each once and at most `most` of them."""
    queue = deque([start] if start is not None else [])
    kept: dict[int, Any] = {}  # nodes are proxies: an id may be used again once its proxy is gone
    while queue and len(kept) < most:
        node = queue.popleft()
        if id(node) in kept:
            continue
        kept[id(node)] = node
        yield node
        queue.extend(inputs_of(node))


def leads_to(start: Any, wanted: Collection[str], through: Collection[str], most: int = 24) -> Any | None:
    """The nearest node of a name in `wanted` that lies behind nodes of the names in `through` only."""
    queue = deque([start] if start is not None else [])
    for _ in range(most):
        if not queue:
            return None
        node = queue.popleft()
        if name_of(node) in wanted:
            return node
        if name_of(node) in through:
            queue.extend(inputs_of(node))
    return None


def saved(node: Any, name: str) -> Any:
    """What `node` keeps under ``_saved_<name>``; None where it keeps nothing, or the values are gone."""
    try:
        value = getattr(node, f"_saved_{name}", None)
    except RuntimeError:
        return None  # freed, or overwritten in place since
    return value.detach() if isinstance(value, torch.Tensor) else value


@dataclass(frozen=True)
class CrossEntropy:
    """What a cross entropy compared.

    Args:
        log_probabilities: (rows, classes), or (rows, classes, height, width).
        targets: int64, (rows,) or (rows, height, width).
        ignored: the target that does not count.
    """

    log_probabilities: torch.Tensor
    targets: torch.Tensor
    ignored: int


def cross_entropy_of(loss: torch.Tensor, most: int = 200) -> CrossEntropy | None:
    """The cross entropy that is nearest to the end of `loss`, however it was called; None where there is none."""
    for node in nodes_of(loss.grad_fn, most):
        if name_of(node) in CROSS_ENTROPIES:
            scores, targets = saved(node, "self"), saved(node, "target")
            if not isinstance(scores, torch.Tensor) or not isinstance(targets, torch.Tensor):
                return None
            ignored = saved(node, "ignore_index")
            # Saved as an unsigned number: -100 reads as 2**64 - 100.
            number = int(ignored) if isinstance(ignored, int) else IGNORED_BY_DEFAULT
            return CrossEntropy(scores, targets, number - (1 << 64) if number >= 1 << 63 else number)
    return None
