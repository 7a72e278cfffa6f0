"""Modules and parameters that a model keeps in lists, dicts or functions, where torch does not look for them."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

DEEPEST = 4
"""Containers inside containers that are looked into."""


@dataclass(frozen=True)
class HiddenParameter:
    name: str
    parameter: nn.Parameter


@dataclass(frozen=True)
class HiddenModule:
    """A module, or a parameter by itself, that ``model.parameters()`` does not find.

    Args:
        name: where it is kept, as one would write it: ``experts[2]``.
        owner: name of the module that keeps it, empty for the model itself.
        attribute: the attribute it is kept in.
        module: the module; one that is empty stands for a parameter by itself.
        parameters: those that train, with their names.
    """

    name: str
    owner: str
    attribute: str
    module: nn.Module
    parameters: tuple[HiddenParameter, ...]


def hidden_modules(model: nn.Module) -> list[HiddenModule]:
    """What `model` and its modules keep in plain attributes and have not registered; only what trains."""
    registered = {id(module) for module in model.modules()} | {id(p) for p in model.parameters()}
    seen: set[int] = set()
    found: list[HiddenModule] = []
    for owner, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute in ("_modules", "_parameters", "_buffers") or attribute.endswith("_hooks"):
                continue
            path = f"{owner}.{attribute}" if owner else attribute
            for name, thing in _kept_in(value, path, DEEPEST):
                if id(thing) in registered or id(thing) in seen:
                    continue
                seen.add(id(thing))
                parameters = tuple(p for p in _trainable(name, thing) if id(p.parameter) not in registered)
                if parameters:
                    holder = thing if isinstance(thing, nn.Module) else nn.Module()
                    found.append(HiddenModule(name, owner, attribute, holder, parameters))
    return found


def _trainable(name: str, thing: nn.Module | nn.Parameter) -> Iterator[HiddenParameter]:
    if isinstance(thing, nn.Parameter):
        if thing.requires_grad:
            yield HiddenParameter(name, thing)
        return
    for inner, parameter in thing.named_parameters():
        if parameter.requires_grad:
            yield HiddenParameter(f"{name}.{inner}", parameter)


def _kept_in(value: Any, path: str, depth: int) -> Iterator[tuple[str, nn.Module | nn.Parameter]]:
    """Modules and parameters inside containers, and inside what functions have closed over."""
    if isinstance(value, (nn.Module, nn.Parameter)):
        yield path, value
    elif depth == 0:
        return
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _kept_in(item, f"{path}[{key!r}]", depth - 1)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(value):
            yield from _kept_in(item, f"{path}[{index}]", depth - 1)
    elif isinstance(value, functools.partial):
        yield from _kept_in((value.func, value.args, value.keywords), path, depth - 1)
    elif isinstance(value, types.FunctionType):
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=False):
            try:
                content = cell.cell_contents
            except ValueError:
                continue  # not filled yet
            if name not in ("self", "__class__"):
                yield from _kept_in(content, f"{path}:{name}", depth - 1)
