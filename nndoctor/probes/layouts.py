"""Which layers a subscription listens to: by depth, by name, by class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import nn

from nndoctor.discovery import ModelIndex, clean_name, unwrap


class Owned(NamedTuple):
    """A parameter: the layer that it counts to, its own name and number, and whether it is a bias."""

    layer: str
    name: str
    number: int
    parameter: nn.Parameter
    bias: bool


@dataclass(frozen=True)
class Layout:
    """The layers of one depth.

    Args:
        modules: number (along the signals' axis) and module by name.
        parameters: those that belong to them, tied ones once.
    """

    modules: dict[str, tuple[int, nn.Module]]
    parameters: tuple[Owned, ...]


def layout(index: ModelIndex, depth: int) -> Layout:
    """The layers at `depth`: those of the index for -1, else what lies `depth` levels below each model, or leaves above.

    Containers that are no layers of the index are added to it by name.
    """
    modules: dict[str, tuple[int, nn.Module]] = {}
    if depth < 0:
        modules = {
            name: (number, module)
            for number, (name, module) in enumerate(zip(index.layer_names, index.layers, strict=True))
            if module is not None
        }
        owners = dict(enumerate(index.layer_names))
        return Layout(modules, tuple(_owned(index, lambda number: owners.get(index.param_layers[number]))))
    owner_of: dict[int, str] = {}
    for key, root in index.roots.items():
        for raw, module in at_depth(unwrap(root), depth):
            name = ".".join(part for part in (key, clean_name(raw) if raw else "") if part) or type(module).__name__
            number = index.layer_numbers.get(id(module))
            if number is None:
                known = name in index.layer_names
                number = index.layer_names.index(name) if known else index.unregistered_layer(name, type(module).__name__)
            modules[name] = (number, module)
            for parameter in module.parameters():
                owner_of.setdefault(id(parameter), name)
    return Layout(modules, tuple(_owned(index, lambda number: owner_of.get(id(index.params[number])))))


def _owned(index: ModelIndex, owner: Callable[[int], str | None]) -> Iterator[Owned]:
    for number, (name, parameter) in enumerate(zip(index.param_names, index.params, strict=True)):
        layer = owner(number)
        if layer is not None:
            yield Owned(layer, name, number, parameter, "bias" in name.rpartition(".")[2])


def at_depth(root: nn.Module, depth: int) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of what lies `depth` levels below `root`, or is a leaf above that, in the order of the model.

    >>> model = nn.Sequential(nn.Sequential(nn.Linear(1, 1), nn.ReLU()), nn.Linear(1, 1))
    >>> [name for name, _ in at_depth(model, 1)]
    ['0', '1']
    """
    seen: set[int] = set()

    def walk(module: nn.Module, name: str, level: int) -> Iterator[tuple[str, nn.Module]]:
        children = list(module.named_children())
        if not children or level == depth:
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module
            return
        for child, inner in children:
            yield from walk(inner, f"{name}.{child}" if name else child, level + 1)

    return walk(root, "", 0)


def is_chosen(name: str, module: nn.Module, wanted: Iterable[str | type[nn.Module]] | None) -> bool:
    """Whether a layer is among those wanted: by a glob on its name, its class or one it is derived from, or that class's name.

    >>> is_chosen("block1.conv", nn.Conv2d(1, 1, 1), ["block*"]), is_chosen("fc", nn.Conv2d(1, 1, 1), [nn.Linear])
    (True, False)
    """
    if wanted is None:
        return True
    classes = {kind.__name__ for kind in type(module).__mro__[:-1]} - {"Module"}
    return any(
        fnmatchcase(name, want) or want in classes if isinstance(want, str) else isinstance(module, want) for want in wanted
    )
