"""Reads single nodes of an autograd graph: name, inputs, shape, and what they keep for backward.

Public attributes where there are any (``next_functions``, the documented ``_saved_*``); whatever torch does not
tell is None, never an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

SHAPE_ONLY = frozenset(
    f"{name}Backward0"
    for name in (
        "View", "UnsafeView", "ReshapeAlias", "Transpose", "T", "Permute", "Slice", "Select", "ToCopy",
        "Clone", "Alias", "Clamp", "ClampMin", "Unsqueeze", "Contiguous", "Flatten", "Index",
    )
) | {f"SqueezeBackward{i}" for i in range(4)} | {f"ClampBackward{i}" for i in range(3)}  # fmt: skip


def name_of(node: Any) -> str:
    """What autograd calls the operation (``AddmmBackward0``)."""
    return type(node).__name__


def children(node: Any) -> Iterator[Any]:
    """The nodes whose results went into the operation of `node`, in the order of its arguments."""
    return (child for child, _ in node.next_functions if child is not None)


def shape_of(node: Any) -> tuple[int, ...] | None:
    """Shape of the tensor that `node` produced in the forward pass; None where torch does not tell."""
    metadata = getattr(node, "_input_metadata", None)
    if not metadata:
        return None
    shape = getattr(metadata[0], "shape", None)
    try:
        return tuple(int(n) for n in shape) if shape is not None else None
    except (TypeError, ValueError, RuntimeError):
        return None


def skip_shape_only(node: Any) -> Any:
    """The first node at or before `node` that does more than move, copy or clamp elements."""
    while name_of(node) in SHAPE_ONLY:
        following = next(children(node), None)
        if following is None:
            return node
        node = following
    return node


def saved(node: Any, name: str) -> Any:
    """What `node` keeps under `name` (``_saved_self``); None if nothing, or if asking would do more than look.

    A tensor packed by hooks (activation checkpoints, offloading) is left alone: unpacking it would repeat a part
    of the forward pass. Older torch does not tell whether there are hooks.
    """
    try:
        packed = getattr(node, name.replace("_saved_", "_raw_saved_", 1), None)
        return None if getattr(packed, "unpack_hook", None) is not None else getattr(node, name, None)
    except RuntimeError:
        return None  # freed, or overwritten in place since


def saved_tensor(node: Any, name: str) -> torch.Tensor | None:
    """The same, where it is a tensor, without its history."""
    found = saved(node, name)
    return found.detach() if isinstance(found, torch.Tensor) else None


def saved_integer(node: Any, name: str) -> int | None:
    """The same, where it is a number; torch hands negative ones back as if they had no sign."""
    found = saved(node, name)
    if not isinstance(found, int):
        return None
    return found - (1 << 64) if found >= 1 << 63 else found
