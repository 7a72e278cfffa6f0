"""Gradient accumulation by its contract: N losses of N batches go into one step, each a mean, none divided by N.

Reads the graph of each loss from its root down to the node that averages, through additions and scalings
only, and the versions of one gradient, which tell whether somebody rescaled it by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from nndoctor.discovery import ModelIndex
from nndoctor.interpose import version_of
from nndoctor.probes.base import Measured

SUMS = frozenset({"AddBackward0", "SubBackward0", "SqueezeBackward0", "ViewBackward0", "ToCopyBackward0", "SumBackward0"})
SCALINGS = frozenset({"MulBackward0", "DivBackward0"})
MEANS = frozenset({"MeanBackward0", "MeanBackward1"})
MEAN_OF_A_LOSS = 1
"""What torch saves as the reduction of a loss that is averaged; 2 is a sum."""


@dataclass(frozen=True)
class Reduction:
    """How a loss was brought down to one number.

    Args:
        kinds: names of the averaging nodes below additions.
        undivided: at least one of them is reached without any scaling on the way.
        weight: what a cross entropy divided by, still on its device; None for other losses.
    """

    kinds: frozenset[str]
    undivided: bool
    weight: torch.Tensor | None


def reduction(loss: torch.Tensor) -> Reduction:
    """Walks from the root of `loss` to its averages; additions and scalings by constants only."""
    kinds: set[str] = set()
    undivided = False
    weight: torch.Tensor | None = None
    stack: list[tuple[Any, bool]] = [(loss.grad_fn, False)]
    for _ in range(64):
        if not stack:
            break
        node, scaled = stack.pop()
        name = type(node).__name__
        following = [child for child, _ in node.next_functions if child is not None] if node is not None else []
        if name in MEANS or _saved(node, "_saved_reduction") == MEAN_OF_A_LOSS:
            kinds.add(name)
            undivided = undivided or not scaled
            total = _saved(node, "_saved_total_weight")
            weight = total if isinstance(total, torch.Tensor) else weight
        elif name in SUMS and (name != "SumBackward0" or _elements(node) == 1):
            stack.extend((child, scaled) for child in following)
        elif name in SCALINGS and len(following) == 1:
            stack.append((following[0], True))
    return Reduction(frozenset(kinds), undivided, weight)


def _saved(node: Any, name: str) -> Any:
    try:
        return getattr(node, name, None)
    except RuntimeError:
        return None


def _elements(node: Any) -> int:
    sizes = _saved(node, "_saved_self_sym_sizes")
    elements = 1
    for size in sizes if sizes is not None else (2,):
        elements *= int(size)
    return elements


@dataclass
class _Window:
    """The backward passes since the last step."""

    reductions: list[Reduction]
    sources: list[object]
    gradient: int | None = None
    version: int = 0
    by_hand: bool = False


class AccumulationProbe:
    """Tells accumulated means that nobody divided by their number."""

    name = "accumulation"
    tier = "graph"
    signals = ("accumulate.window", "accumulate.undivided", "accumulate.unevenness")

    def __init__(self) -> None:
        self._window = _Window([], [])
        self._watched: torch.Tensor | None = None
        self._source: object = None
        self._piece: tuple[int, int] | None = None
        self._scaled: tuple[int, torch.Tensor] | None = None
        self._found: dict[str, Measured] = {}

    def attach(self, index: ModelIndex) -> None:
        trained = [param for param in index.params if param.requires_grad]
        self._watched = trained[-1] if trained else None  # the head: every loss reaches it

    def detach(self) -> None:
        self._watched = self._scaled = None

    def begin_step(self, step: int, sampled: bool) -> None:
        self._window, self._found = _Window([], []), {}
        self._source = self._piece = self._scaled = None

    def batch_loaded(self, loader: object, batch: object, training: bool) -> None:
        """The next loss has a batch of its own."""
        self._source = ("loader", id(loader))

    def forward_begins(self, root: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Without a loader, the batches are pieces of one tensor."""
        given = next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)
        if given is None or self._source is not None:
            return
        piece = (given.untyped_storage().data_ptr(), int(given.storage_offset()))
        if self._piece is None or (piece[0] == self._piece[0] and piece[1] != self._piece[1]):
            self._source = ("pieces", piece[0])
        self._piece = piece

    def loss_scaled(self, loss: object, scaled: object) -> None:
        """What a gradient scaler multiplied is not what the loop divided."""
        if isinstance(loss, torch.Tensor):
            self._scaled = (id(scaled), loss)

    def backward_begins(self, loss: object) -> None:
        if self._scaled is not None and self._scaled[0] == id(loss):
            loss = self._scaled[1]
        self._scaled = None
        if isinstance(loss, torch.Tensor) and loss.grad_fn is not None:
            self._window.reductions.append(reduction(loss))
            self._window.sources.append(self._source)
        self._source = None

    def backward_ended(self) -> None:
        """Follow one gradient: each backward of the window must have added to it."""
        gradient = self._watched.grad if self._watched is not None else None
        window = self._window
        if gradient is None or gradient.is_sparse:
            return
        now = version_of(gradient)
        if window.gradient == id(gradient):
            window.by_hand = window.by_hand or now != window.version + 1
        elif window.gradient is not None:  # made anew: what was there before has been cleared, as after a step that amp skips
            window.by_hand = True
        window.gradient, window.version = id(gradient), now

    def gradients_unscaled(self, scaler: object, optimizer: object) -> None:
        gradient = self._watched.grad if self._watched is not None else None
        if gradient is not None and self._window.gradient == id(gradient):
            self._window.version = version_of(gradient)

    def clipped(self, total_norm: object, max_norm: object) -> None:
        """Look at the gradient just before it is clipped."""
        self._close_window()

    def gradients_ready(self, optimizer: object) -> None:
        self._close_window()

    def _close_window(self) -> None:
        """Judge the window, once; a change of the gradient after the last backward is somebody's own scaling."""
        window, gradient = self._window, self._watched.grad if self._watched is not None else None
        if not window.reductions:
            return
        untouched = gradient is not None and (id(gradient), version_of(gradient)) == (window.gradient, window.version)
        first = window.reductions[0]
        accumulated = (
            len(window.reductions) > 1
            and untouched
            and not window.by_hand
            and window.sources[0] is not None
            and all(source == window.sources[0] for source in window.sources)
            and all(made.kinds == first.kinds and made.kinds for made in window.reductions)
        )
        self._found = {
            "accumulate.window": float(len(window.reductions)) if accumulated else 1.0,
            "accumulate.undivided": float(accumulated and all(made.undivided for made in window.reductions)),
        }
        weights = [made.weight for made in window.reductions if made.weight is not None]
        if accumulated and len(weights) == len(window.reductions):
            shares = torch.stack([weight.detach().float().reshape(()) for weight in weights])  # (micro-batches,)
            self._found["accumulate.unevenness"] = (shares.amax() / shares.amin().clamp_min(1e-12))[None]
        self._window = _Window([], [])

    def collect(self) -> Mapping[str, Measured]:
        return self._found
