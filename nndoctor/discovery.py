"""Which layers, parameters and optimizers belong to a run, and what they are called.

Names are the user's own: ``named_modules`` and ``named_parameters`` without the prefixes that
wrappers add. A tied parameter is counted once, under its first name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import nn

from nndoctor.signals import Targets

Models: TypeAlias = nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module]
Optimizers: TypeAlias = torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | Mapping[str, torch.optim.Optimizer]

WRAPPER_SEGMENTS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
NORMALISATIONS: tuple[type[nn.Module], ...] = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    *((nn.RMSNorm,) if hasattr(nn, "RMSNorm") else ()),
)
DROPOUTS: tuple[type[nn.Module], ...] = (nn.modules.dropout._DropoutNd,)


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module inside DataParallel, DistributedDataParallel and torch.compile wrappers."""
    while True:
        wrapped = isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel))
        inner = model.module if wrapped else getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def unwrap_optimizer(optimizer: object) -> torch.optim.Optimizer:
    """The torch optimizer inside wrappers such as Accelerate's and Lightning's.

    Raises:
        TypeError: there is no ``torch.optim.Optimizer`` inside.
    """
    seen = 0
    inner: object = optimizer
    while not _is_real(inner) and seen < 8:
        seen += 1
        inner = getattr(inner, "optimizer", None) or getattr(inner, "_optimizer", None)
    if isinstance(inner, torch.optim.Optimizer):
        return inner
    raise TypeError(
        f"expected a torch.optim.Optimizer (or a wrapper around one), got {type(optimizer).__name__}; "
        "hand over the optimizer whose step() the training loop calls"
    )


def _is_real(optimizer: object) -> bool:
    """Whether it is an optimizer itself: Accelerate's wrapper is one by its class only, and its ``step`` has no hooks."""
    return isinstance(optimizer, torch.optim.Optimizer) and "defaults" in vars(optimizer)


def clean_name(name: str) -> str:
    """`name` without the segments that DDP, FSDP, torch.compile and checkpoint wrappers insert."""
    kept = [segment for segment in name.split(".") if segment not in WRAPPER_SEGMENTS]
    return ".".join(kept) if kept else name


def named(objects: object, kind: type | tuple[type, ...], default: str, expected: str) -> dict[str, object]:
    """One object, a list or a dict of them as a dict by name; a single one is called ``""``.

    Raises:
        TypeError: something in it is not of `kind`; says what came instead.
    """
    if isinstance(objects, kind):
        return {"": objects}
    if isinstance(objects, Mapping):
        items = {str(name): value for name, value in objects.items()}
    elif isinstance(objects, (list, tuple)):
        items = {f"{default}{i}": value for i, value in enumerate(objects)}
        if len(items) == 1:
            items = {"": objects[0]}
    else:
        items = {default: objects}
    if not items:
        raise TypeError(f"expected {expected}, got an empty {type(objects).__name__}")
    for name, value in items.items():
        if not isinstance(value, kind):
            raise TypeError(f"expected {expected}, got {type(value).__name__} for {name!r}")
    return items


def _called_parts(name: str, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The outermost modules that can be called; `model` itself unless it only holds others."""
    # what torch.compile returns has its forward as an attribute of its own
    has_forward = type(model).forward is not nn.Module.forward or "forward" in vars(model)
    holds_only = not has_forward and not list(model.parameters(recurse=False))
    children = list(model.named_children()) if holds_only else []
    if not children:
        yield name, model
    for child_name, child in children:
        yield from _called_parts(f"{name}.{child_name}" if name else child_name, child)


class ModelIndex:
    """Every layer and parameter of the models in one run, each with a fixed number.

    A layer is a module that has no children, or that owns parameters itself. Functional activations
    that are seen later are appended, so numbers never change.

    Args:
        models: one module, or several as list or dict; with several, names start with the key. A module without a
            ``forward`` of its own (a ``ModuleDict``, a class that holds generator and critic) stands for its children.
    """

    def __init__(self, models: Models) -> None:
        found = named(models, nn.Module, "model", "a torch.nn.Module (or a list or dict of them)")
        self.roots: dict[str, nn.Module] = {
            part_name: part
            for name, model in found.items()
            if isinstance(model, nn.Module)
            for part_name, part in _called_parts(name, model)
        }
        self.layers: list[nn.Module | None] = []
        self.layer_names: list[str] = []
        self.layer_kinds: list[str] = []
        self.layer_depths: list[int] = []
        self.layer_numbers: dict[int, int] = {}
        self.params: list[nn.Parameter] = []
        self.param_names: list[str] = []
        self.param_layers: list[int] = []
        self.param_numbers: dict[int, int] = {}
        self.groups: list[str] = []
        self.looks_inside_compiled = False
        """Whether probes may put hooks on modules that torch.compile compiles."""
        self._functional: dict[tuple[str, str], int] = {}
        self._called = 0
        for key, root in self.roots.items():
            self._add_model(key, unwrap(root))

    def _add_model(self, key: str, root: nn.Module) -> None:
        for raw_name, module in root.named_modules():
            own = list(module.named_parameters(recurse=False))
            if id(module) in self.layer_numbers or (not own and any(True for _ in module.children())):
                continue
            name = clean_name(raw_name)
            full_name = ".".join(part for part in (key, name) if part) or type(module).__name__
            number = self._add_layer(full_name, type(module).__name__, module)
            for param_name, param in own:
                self._add_param(f"{full_name}.{param_name}" if name or key else param_name, param, number)

    def _add_layer(self, name: str, kind: str, module: nn.Module | None) -> int:
        number = len(self.layers)
        self.layers.append(module)
        self.layer_names.append(name)
        self.layer_kinds.append(kind)
        self.layer_depths.append(-1)
        if module is not None:
            self.layer_numbers[id(module)] = number
        return number

    def _add_param(self, name: str, param: nn.Parameter, layer: int) -> None:
        if id(param) in self.param_numbers or isinstance(param, nn.parameter.UninitializedParameter):
            return
        self.param_numbers[id(param)] = len(self.params)
        self.params.append(param)
        self.param_names.append(name)
        self.param_layers.append(layer)

    def adopt_late_parameters(self) -> bool:
        """Add parameters that appeared after attaching (lazy modules); True if there were any."""
        before = len(self.params)
        for number, module in enumerate(self.layers):
            if module is None:
                continue
            for name, param in module.named_parameters(recurse=False):
                self._add_param(f"{self.layer_names[number]}.{name}", param, number)
        return len(self.params) > before

    def functional_layer(self, parent: str, function: str) -> int:
        """The number of a functional activation inside the module `parent`, added when it is new.

        Several calls of the same function in one module share one layer (``block1/relu``).
        """
        key = (parent, function)
        if key not in self._functional:
            name = f"{parent}/{function}" if parent else f"/{function}"
            self._functional[key] = self._add_layer(name, f"{function}()", None)
        return self._functional[key]

    def unregistered_layer(self, name: str, kind: str) -> int:
        """A number for a module that the model uses without having registered it; it is known by `name` alone."""
        return self._add_layer(name, kind, None)

    def called(self, number: int) -> None:
        """Note the first forward call of a layer: its depth is the order of first calls."""
        if self.layer_depths[number] < 0:
            self.layer_depths[number] = self._called
            self._called += 1

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter by its name, tied ones once."""
        return dict(zip(self.param_names, self.params, strict=True))

    def add_groups(self, names: Iterable[str]) -> None:
        self.groups.extend(name for name in names if name not in self.groups)

    def targets(self) -> Targets:
        """The present names as an immutable record."""
        return Targets(
            layers=tuple(self.layer_names),
            layer_kinds=tuple(self.layer_kinds),
            layer_depths=tuple(self.layer_depths),
            params=tuple(self.param_names),
            param_layers=tuple(self.param_layers),
            param_shapes=tuple(tuple(p.shape) for p in self.params),
            groups=tuple(self.groups),
        )

    def serves_trainable(self, module_name: str) -> bool:
        """Whether the nearest enclosing module of `module_name` that has parameters trains any of them.

        A dropout or normalisation inside a frozen backbone serves nothing that trains.
        """
        segments = module_name.split(".")
        for length in range(len(segments), -1, -1):
            prefix = ".".join(segments[:length])
            inside = [
                param
                for name, param in zip(self.param_names, self.params, strict=True)
                if not prefix or name.startswith(prefix + ".")
            ]
            if inside:
                return any(param.requires_grad for param in inside)
        return False


def twins(index: ModelIndex) -> tuple[tuple[nn.Module, nn.Module], ...]:
    """Pairs (frozen, trained) of whole networks built alike: teachers, target and momentum networks beside the trained one.

    Looked for among the models of the run and their direct parts; repeated blocks deeper inside are built alike as well.
    """
    parts = [part for root in index.roots.values() for part in (unwrap(root), *unwrap(root).children())]
    alike: dict[tuple[object, ...], list[nn.Module]] = {}
    for part in parts:
        shapes = tuple(tuple(param.shape) for param in part.parameters())
        if sum(1 for module in part.modules() if next(module.parameters(recurse=False), None) is not None) > 1:
            alike.setdefault((type(part), shapes), []).append(part)
    return tuple(
        (frozen, trained)
        for group in alike.values()
        for frozen in group
        for trained in group
        if frozen is not trained
        and not any(param.requires_grad for param in frozen.parameters())
        and any(param.requires_grad for param in trained.parameters())
    )


def optimizers_by_name(optimizers: object) -> dict[str, torch.optim.Optimizer]:
    """One optimizer, a list or a dict of them (or of wrappers) by name.

    Raises:
        TypeError: one of them is no optimizer.
    """
    if isinstance(optimizers, Mapping):
        return {str(name): unwrap_optimizer(value) for name, value in optimizers.items()}
    if isinstance(optimizers, (list, tuple)):
        if not optimizers:
            raise TypeError("expected an optimizer (or a list or dict of them), got an empty list")
        found = [unwrap_optimizer(value) for value in optimizers]
        return dict(zip(unique_names([type(o).__name__.lower() for o in found]), found, strict=True))
    only = unwrap_optimizer(optimizers)
    return {type(only).__name__.lower(): only}


def unique_names(names: Sequence[str]) -> list[str]:
    """`names` with a number behind those that occur more than once."""
    return [f"{name}{i}" if names.count(name) > 1 else name for i, name in enumerate(names)]
