"""Finds what a loss is made of close to its end: nodes of its graph by name, and its cross entropy."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from nndoctor.probes.nodes import children, name_of, saved_integer, saved_tensor

CROSS_ENTROPIES = frozenset({"NllLossBackward0", "NllLoss2DBackward0"})
IGNORED_BY_DEFAULT = -100


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
        queue.extend(children(node))


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
            queue.extend(children(node))
    return None


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
            scores, targets = saved_tensor(node, "_saved_self"), saved_tensor(node, "_saved_target")
            if scores is None or targets is None:
                return None
            ignored = saved_integer(node, "_saved_ignore_index")
            return CrossEntropy(scores, targets, IGNORED_BY_DEFAULT if ignored is None else ignored)
    return None
