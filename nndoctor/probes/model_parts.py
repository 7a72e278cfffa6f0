"""What the parts of a model are there for: frozen ones, copies, adapters, zero-initialised branches, experts.

Read off names, shapes, ``requires_grad`` and identity; only for zeros and for copies are a few values looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from nndoctor.discovery import DROPOUTS, NORMALISATIONS, ModelIndex, unwrap
from nndoctor.interpose import version_of

Shapes = tuple[tuple[str, tuple[int, ...]], ...]

SAMPLE = 8
"""Elements of a weight that are looked at; all of them zero in one that was not zeroed is next to impossible."""

MOST_COPIES = 4


class Reading:
    """Numbers on their way from a device, had when they have arrived: nothing waits.

    On devices other than the CPU and CUDA they never arrive.
    """

    def __init__(self, values: torch.Tensor) -> None:
        self._numbers: list[float] | None = None
        self._host: torch.Tensor | None = None
        flat = values.detach().reshape(-1).float()
        if flat.device.type == "cpu":
            self._numbers = flat.tolist()
        elif flat.is_cuda and not torch.cuda.is_current_stream_capturing():
            self._host = torch.empty(flat.shape, pin_memory=True)
            self._host.copy_(flat, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(flat.device))

    @property
    def numbers(self) -> list[float] | None:
        if self._host is not None and self._event.query():  # type: ignore[no-untyped-call]
            self._numbers, self._host = self._host.tolist(), None
        return self._numbers


@dataclass(frozen=True)
class Frozen:
    """How much of the models does not train.

    Args:
        layers, of_layers: layers none of whose parameters train, of all that have parameters.
        in_eval: of the normalisation and dropout layers that serve them, all are in eval mode, those elsewhere are not.
    """

    layers: int = 0
    of_layers: int = 0
    in_eval: bool = False


def frozen_parts(index: ModelIndex, besides: Collection[int]) -> Frozen:
    """What is frozen on purpose or not, without the modules in `besides`, by ``id``."""
    layers = [module for module in index.layers if module is not None and id(module) not in besides]
    states = {id(m): own for m in layers if (own := [p.requires_grad for p in m.parameters(recurse=False)])}
    still = [m for m in layers if id(m) in states and not any(states[id(m)])]
    if not still or len(still) == len(states):
        return Frozen(0, len(states))
    telling = (*NORMALISATIONS, *DROPOUTS)
    calm = [m.training for m in still if isinstance(m, telling)]
    roots = [unwrap(root).training for root in index.roots.values()]
    in_eval = not any(calm) if calm else not any(m.training for m in still)
    return Frozen(len(still), len(states), in_eval and any(roots))


def shapes_of(module: nn.Module) -> Shapes:
    """Names and shapes of a module's parameters; two that agree are copies of each other, or built alike."""
    return tuple((name, tuple(p.shape)) for name, p in module.named_parameters())


def without_names(shapes: Shapes) -> tuple[tuple[int, ...], ...]:
    return tuple(shape for _, shape in shapes)


@dataclass(frozen=True)
class Copy:
    """A module that does not train beside one of the same shape that does."""

    still: nn.Module
    moving: nn.Module
    same: Reading
    """0 where the values looked at were equal at the start."""

    versions: tuple[int, ...]


def copies(index: ModelIndex) -> tuple[Copy, ...]:
    """Modules that may be teachers or targets, looked at before the first step: of each there is another of the same shape.

    Those are modules without trainable parameters inside of the models, and whole models, which an optimizer may turn
    out not to hold.
    """
    roots = [unwrap(root) for root in index.roots.values()]
    still = [module for root in roots for module in _still(root)] + (roots[1:] if len(roots) > 1 else [])
    wanted = {shapes_of(module) for module in still}
    moving: dict[Shapes, list[nn.Module]] = {}
    for root in roots if wanted else ():
        for module in root.modules():
            shapes = shapes_of(module) if any(p.requires_grad for p in module.parameters()) else ()
            if shapes in wanted:
                moving.setdefault(shapes, []).append(module)
    found: dict[int, Copy] = {}
    for module in still[: 4 * MOST_COPIES]:
        partner = next((other for other in moving.get(shapes_of(module), ()) if other is not module), None)
        if partner is not None and len(found) < MOST_COPIES:
            found.setdefault(id(module), Copy(module, partner, _difference(module, partner), versions(module)))
    return tuple(found.values())


def versions(module: nn.Module) -> tuple[int, ...]:
    """How often the first parameters were written."""
    return tuple(version_of(p) for _, p in zip(range(2), module.parameters(), strict=False))


def _still(module: nn.Module) -> Iterator[nn.Module]:
    """The largest modules in `module` of which nothing trains."""
    params = list(module.parameters())
    if not params:
        return
    if not any(p.requires_grad for p in params):
        yield module
        return
    for child in module.children():
        yield from _still(child)


def _difference(one: nn.Module, other: nn.Module) -> Reading:
    pairs = [(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True) if a.dim() >= 2 and a.device == b.device]
    if not pairs:
        pairs = list(zip(one.parameters(), other.parameters(), strict=True))[:1]
    return Reading(torch.stack([(_some(a) - _some(b).to(a)).abs().amax() for a, b in pairs[:2]]).amax())


def _some(param: torch.Tensor) -> torch.Tensor:
    """Eight elements spread over a parameter."""
    flat = param.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // SAMPLE)][:SAMPLE]


def adapted_layers(index: ModelIndex) -> int:
    """Frozen linear layers beside which a product of two small trainable matrices of the same outer shape stands."""
    trainable: dict[str, list[Matrix]] = {}
    frozen: list[tuple[str, tuple[int, int]]] = []
    for name, param in zip(index.param_names, index.params, strict=True):
        if param.dim() != 2:
            continue
        home, shape = name.rpartition(".")[0], (param.shape[0], param.shape[1])
        if not param.requires_grad:
            frozen.append((home, shape))
            continue
        for _ in range(3):
            trainable.setdefault(home, []).append((name, shape))
            home = home.rpartition(".")[0]
    used: set[str] = set()
    for home, shape in frozen:
        pair = _low_rank(shape, trainable.get(home, ())) or _low_rank(shape, trainable.get(home.rpartition(".")[0], ()))
        used |= {pair} if pair else set()
    return len(used)


Matrix = tuple[str, tuple[int, int]]


def _low_rank(shape: tuple[int, int], near: Sequence[Matrix]) -> str:
    """The name of the first of two matrices whose product has that shape; empty where there are none."""
    rows, columns = shape
    for name, down in near:
        for rank, width in (down, down[::-1]):
            fits = width == columns and rank < min(shape)
            if fits and any(up in ((rows, rank), (rank, rows)) for other, up in near if other != name):
                return name
    return ""


@dataclass(frozen=True)
class Zeros:
    """Which weights may have been zero at the start."""

    names: tuple[str, ...]
    nonzero: Reading

    @property
    def found(self) -> tuple[str, ...] | None:
        """Names of the weights that were; None while the values are on their way."""
        numbers = self.nonzero.numbers
        return None if numbers is None else tuple(n for n, count in zip(self.names, numbers, strict=True) if count == 0)


def zeros(index: ModelIndex) -> Zeros | None:
    """Look at a few elements of every trainable matrix and every scale of a normalisation, once."""
    taken: list[tuple[str, torch.Tensor]] = []
    for name, param, layer in zip(index.param_names, index.params, index.param_layers, strict=True):
        scale = name.endswith("weight") and isinstance(index.layers[layer], NORMALISATIONS)
        if param.requires_grad and param.numel() >= SAMPLE and (param.dim() >= 2 or scale) and param.layout == torch.strided:
            taken.append((name, _some(param)))
    if not taken:
        return None
    home = taken[0][1].device
    same = [(name, values) for name, values in taken if values.device == home]
    counts = torch.stack([values.float() for _, values in same]).count_nonzero(1)
    return Zeros(tuple(name for name, _ in same), Reading(counts))


def siblings(index: ModelIndex) -> Mapping[int, int]:
    """Modules in lists of several that are built alike and may be experts: ``id`` of each to that of its list."""
    found: dict[int, int] = {}
    for root in index.roots.values():
        for parent in unwrap(root).modules():
            if not isinstance(parent, (nn.ModuleList, nn.ModuleDict)):
                continue
            children = list(parent.children())
            if len(children) > 1 and len({without_names(shapes_of(child)) for child in children}) == 1:
                found.update((id(child), id(parent)) for child in children)
    return found
