"""Measures how long each layer works in forward and backward, by cutting the step into tiles.

One stream of stamps: each says whose work begins now, so every interval belongs to exactly one label
and the tiles add up to the step by construction. Backward work is seen by hooks on autograd nodes,
which change neither the graph nor its results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any

import torch
from torch import nn

from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import Measured
from nndoctor.probes.forward import HookSet, Place, follow_fused_paths, in_backward, is_transformed, places

NAN = float("nan")
NANOSECONDS = 1e9

# Labels: 2 n and 2 n + 1 are forward and backward of layer n; below zero is the named rest.
BEFORE, FORWARD_OTHER, LOSS, BACKWARD_OTHER, RECOMPUTE, AFTER, OPTIMIZER = range(-1, -8, -1)
REST = {
    BEFORE: "before forward",
    FORWARD_OTHER: "forward outside layers",
    LOSS: "loss",
    BACKWARD_OTHER: "backward outside layers",
    RECOMPUTE: "recomputed forward",
    AFTER: "after backward",
    OPTIMIZER: "optimizer",
}
TAGGED = "nndoctor"
TENSORS_FOLLOWED = 16  # of one module's inputs or outputs


@dataclass(frozen=True, slots=True)
class Tiles:
    """One step cut into tiles, in whole nanoseconds: their sum is the span, exactly.

    Args:
        span: from the beginning of the step to its collection.
        forward: own time of layers by number, without that of modules inside.
        backward: likewise for the backward pass.
        rest: what belongs to no layer, by name.
    """

    span: int
    forward: Mapping[int, int]
    backward: Mapping[int, int]
    rest: Mapping[str, int]


@dataclass(slots=True)
class Stamps:
    """The stamps of one step, in the order in which they were made."""

    times: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    running: list[tuple[Place, int]] = field(default_factory=list)
    """Modules that run now, each with the label it interrupted."""
    roots: list[bool] = field(default_factory=list)
    open: bool = True

    def stamp(self, label: int) -> None:
        """What runs from now on belongs to `label`."""
        if self.open:
            self.times.append(perf_counter_ns())
            self.labels.append(label)

    def close(self) -> Tiles:
        """End the last tile now; later stamps, of a graph that is kept and run again, do nothing."""
        self.stamp(AFTER)
        self.open = False
        return tiles_of(self.times, self.labels)


def tiles_of(times: list[int], labels: list[int]) -> Tiles:
    """Add up the intervals between stamps by label; the last stamp only ends the last interval."""
    totals: dict[int, int] = {}
    for label, begin, end in zip(labels, times, times[1:], strict=False):
        totals[label] = totals.get(label, 0) + end - begin
    return Tiles(
        span=times[-1] - times[0] if times else 0,
        forward={label // 2: total for label, total in totals.items() if label >= 0 and label % 2 == 0},
        backward={label // 2: total for label, total in totals.items() if label >= 0 and label % 2 == 1},
        rest={name: totals[label] for label, name in REST.items() if label in totals},
    )


class LayerTimesProbe:
    """Own forward and backward time of every layer on sampled steps.

    Times are the host's: on an accelerator they tell when work was handed over, not how long the device
    took (``notes`` says so); nothing waits for the device. A forward pass that a checkpoint repeats
    during backward is told apart (``tiles.rest``), as is what happens outside of layers.
    """

    name = "layer times"
    tier = "times"
    hooks_layers = True
    signals = ("time.forward", "time.backward")

    def __init__(self) -> None:
        self._index: ModelIndex | None = None
        self._places: tuple[Place, ...] = ()
        self._hidden: tuple[str, ...] = ()
        self._hooks = self._fused_hooks = HookSet(self._failed)
        self._stamps = Stamps(open=False)
        self._on_accelerator = False
        self.tiles: Tiles | None = None
        """The tiles of the step collected last."""

    def attach(self, index: ModelIndex) -> None:
        self._index = index
        self._places, self._hidden = places(index)
        self._on_accelerator = any(param.device.type not in ("cpu", "meta") for param in index.params)

    def detach(self) -> None:
        self._end_step()

    def begin_step(self, step: int, sampled: bool) -> None:
        self._end_step()
        if not sampled or self._index is None:
            return
        self._hooks, self._fused_hooks = HookSet(self._failed), HookSet(self._failed)
        for place in self._places:
            if place.root:
                self._hooks.before(place, self._root_began)
            if place.fused_in is None:
                self._install_on(place, self._hooks)
            if place.root:
                self._hooks.after(place, self._root_ended, always=True)
        self._stamps = Stamps()
        self._stamps.stamp(BEFORE)

    def backward_begins(self, loss: object) -> None:
        """``backward()`` is about to run."""
        if not in_backward():
            self._stamps.stamp(LOSS)

    def backward_ended(self) -> None:
        """``backward()`` has returned: the tile of the last layer ends here."""
        if not in_backward():
            self._stamps.stamp(AFTER)

    def gradients_ready(self, optimizer: torch.optim.Optimizer) -> None:
        self._stamps.stamp(OPTIMIZER)

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        self._stamps.stamp(AFTER)

    def collect(self) -> Mapping[str, Measured]:
        """Seconds of own forward and backward work over all layers, NaN where none was seen; {} without a training pass.

        Raises:
            Exception: what went wrong in one of the hooks.
        """
        failure = self._hooks.failure or self._fused_hooks.failure
        try:
            if failure is not None:
                raise failure
            if self._index is None or not self._stamps.open:
                return {}
            self.tiles = tiles = self._stamps.close()
            size = len(self._index.layers)
            found = {"time.forward": tiles.forward, "time.backward": tiles.backward}
            return {name: seconds(times, size) for name, times in found.items() if times}
        finally:
            self._end_step()

    def notes(self) -> tuple[str, ...]:
        """What is to be known about these times, one sentence each."""
        clock = "layer times are the host's: the accelerator works on after a call has returned"
        return (*self._hidden, *((clock,) if self._on_accelerator else ()))

    # hooks of one sampled step

    def _failed(self) -> None:
        self._stamps.open = False

    def _end_step(self) -> None:
        if not self._hooks:
            return
        self._hooks.remove()
        self._fused_hooks.remove()
        self._stamps.open = False  # node hooks of this step's graph still hold it
        self._stamps = Stamps(open=False)

    def _install_on(self, place: Place, hooks: HookSet) -> None:
        hooks.before(place, self._module_began, keywords=True)
        hooks.after(place, self._module_ended, always=True)  # also when a checkpoint stops its repetition early

    def _in_training(self) -> bool:
        return (torch.is_grad_enabled() or any(self._stamps.roots)) and not is_transformed()

    def _root_began(self, place: Place, module: nn.Module, args: Any) -> None:
        training = self._in_training()
        self._stamps.roots.append(training)
        if not in_backward():
            follow_fused_paths(self._places, self._fused_hooks, training, self._install_on)

    def _root_ended(self, place: Place, module: nn.Module, args: Any, output: Any) -> None:
        if self._stamps.roots:
            self._stamps.roots.pop()

    def _module_began(self, place: Place, module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        if not self._in_training():
            return
        stamps = self._stamps
        recomputed = in_backward()
        if torch.is_grad_enabled():
            parent = stamps.running[-1][0] if stamps.running else None
            for tensor in tensors_in((args, kwargs)):
                self._tag(tensor, backward_label(parent))
        interrupted = stamps.labels[-1] if stamps.running or recomputed or stamps.labels[-1] == OPTIMIZER else LOSS
        stamps.running.append((place, interrupted))
        stamps.stamp(RECOMPUTE if recomputed else forward_label(place))

    def _module_ended(self, place: Place, module: nn.Module, args: Any, output: Any) -> None:
        running = self._stamps.running
        if not any(other is place for other, _ in running):
            return
        if torch.is_grad_enabled():
            for tensor in tensors_in(output):
                self._tag(tensor, backward_label(place))
        while True:
            other, interrupted = running.pop()
            if other is place:
                break
        self._stamps.stamp(interrupted)

    def _tag(self, tensor: torch.Tensor, label: int) -> None:
        """Stamp `label` when backward reaches the node that made `tensor`, unless another module has claimed it."""
        node: Any = tensor.grad_fn
        if node is None:
            return
        stamps = self._stamps
        claims: dict[Any, Any] = node.metadata
        if claims.get(TAGGED) is stamps:
            return
        claims[TAGGED] = stamps

        def reached(gradients: object) -> None:
            stamps.stamp(label)

        node.register_prehook(reached)


def forward_label(place: Place) -> int:
    return FORWARD_OTHER if place.layer is None else 2 * place.layer


def backward_label(place: Place | None) -> int:
    return BACKWARD_OTHER if place is None or place.layer is None else 2 * place.layer + 1


def tensors_in(value: object) -> Iterator[torch.Tensor]:
    """The tensors in a module's arguments or output, in nested tuples, lists, dicts and dataclasses; the first few."""
    queue: list[object] = [value]
    found = 0
    while queue and found < TENSORS_FOLLOWED:
        item = queue.pop()
        if isinstance(item, torch.Tensor):
            found += 1
            yield item
        elif isinstance(item, Mapping):
            queue.extend(item.values())
        elif isinstance(item, (tuple, list)):
            queue.extend(item[:TENSORS_FOLLOWED])
        elif hasattr(item, "__dataclass_fields__"):
            queue.extend(getattr(item, name, None) for name in item.__dataclass_fields__)


def seconds(times: Mapping[int, int], size: int) -> list[float]:
    """Nanoseconds by layer as seconds over all layers, NaN where there are none."""
    return [times[number] / NANOSECONDS if number in times else NAN for number in range(size)]
