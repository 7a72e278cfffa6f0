"""Tensors inside nested tuples, lists, dicts and dataclasses, as batches and model outputs are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor


def named_tensors(tree: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in `tree` with its path, such as ``logits`` or ``past.0.1``."""
    if isinstance(tree, Tensor):
        yield name, tree
        return
    items: Iterator[tuple[object, Any]]
    if isinstance(tree, Mapping):
        items = iter(tree.items())
    elif isinstance(tree, (tuple, list)):
        items = iter(enumerate(tree))
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        items = iter((field.name, getattr(tree, field.name)) for field in dataclasses.fields(tree))
    else:
        return
    for key, value in items:
        yield from named_tensors(value, f"{name}.{key}" if name else str(key))


def tensors(tree: Any) -> list[Tensor]:
    return [tensor for _, tensor in named_tensors(tree)]


def mapped(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """`tree` with every tensor replaced by what `function` makes of it; other leaves are the same objects.

    Mappings other than dict come back as dict, which is all that a call with keywords needs.
    """
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        return {key: mapped(function, value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(mapped(function, value) for value in tree))
    if isinstance(tree, (tuple, list)):
        return type(tree)(mapped(function, value) for value in tree)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        changed = {f.name: mapped(function, getattr(tree, f.name)) for f in dataclasses.fields(tree) if f.init}
        return dataclasses.replace(tree, **changed)
    return tree
