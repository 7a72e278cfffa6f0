"""Measures where a step goes, layer by layer and part by part, by cutting it into tiles.

One stream of stamps: each says whose work begins now, so every interval belongs to exactly one label
and the tiles add up to the step by construction. Backward work is seen by hooks on autograd nodes,
which change neither the graph nor its results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from threading import get_ident
from time import perf_counter_ns
from typing import Any

import torch
from torch import nn

from nndoctor.discovery import ModelIndex
from nndoctor.interpose import hooks_beside, hooks_with, watch_groups
from nndoctor.probes.base import Hook, Measured
from nndoctor.probes.forward import (
    HookSet,
    Place,
    current_transform,
    follow_fused_paths,
    graph_task,
    in_backward,
    is_transformed,
    places,
)
from nndoctor.probes.machine import machine
from nndoctor.tiles import (
    BACKWARD,
    BACKWARD_OTHER,
    CHECKPOINT,
    CLIPPING,
    DATA_WAIT,
    DOCTOR,
    EVALUATION,
    FIRST_GROUP,
    FORWARD,
    FORWARD_OTHER,
    LAYER_SIGNALS,
    LOSS,
    NAMED,
    NANOSECONDS,
    OPTIMIZER,
    PREPARE,
    RECOMPUTED,
    RECOMPUTED_OTHER,
    REST,
    SCALER,
    SCHEDULER,
    TO_DEVICE,
    ZERO_GRAD,
    Stamps,
    Tiles,
    signals_of,
)

PARTS = {"zero_grad": ZERO_GRAD, "clipping": CLIPPING, "scaler": SCALER, "scheduler": SCHEDULER, "checkpoint": CHECKPOINT}
BETWEEN_STEPS = frozenset({REST, DATA_WAIT, PREPARE, EVALUATION})
"""An evaluation that begins in one of these lasts until training goes on; elsewhere it is an aside of the step."""

STAMP_SECONDS = 4.5e-6
"""What a stamp costs, the hook that makes it included: the difference of LeNet's steps of 9 ms with hooks and without them, 0.28 ms,
over its 62 stamps, caches as cold as a step leaves them (benchmarks/probe_cost.py --probe times --every-step)."""

TAGGED = "nndoctor"
TENSORS_FOLLOWED = 16  # of one module's inputs or outputs


class Opening:
    """The end of the tiling that hears everything first: what follows until the other end hears it is the doctor's own."""

    name = "beginning of layer times"
    tier = "times"
    signals: tuple[str, ...] = ()

    def __init__(self, probe: LayerTimesProbe) -> None:
        self._probe = probe

    def attach(self, index: ModelIndex) -> None: ...

    def detach(self) -> None: ...

    def begin_step(self, step: int, sampled: bool) -> None:
        self._probe.open(step, sampled)

    def forward_begins(self, root: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._probe.inputs_arrived((args, kwargs))
        self._probe.stamps.stamp(DOCTOR)

    def evaluation_begins(self, root: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._probe.evaluation_begins(root, args, kwargs)

    def backward_begins(self, loss: object) -> None:
        if not in_backward():
            self._probe.stamps.stamp(DOCTOR)

    def backward_ended(self) -> None:
        if not in_backward():
            self._probe.stamps.stamp(DOCTOR)

    def gradients_ready(self, optimizer: torch.optim.Optimizer) -> None:
        self._probe.optimizer_interrupts()
        self._probe.stamps.stamp(DOCTOR)

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        self._probe.stamps.stamp(DOCTOR)

    def collect(self) -> Mapping[str, Measured]:
        self._probe.end()
        return {}


class LayerTimesProbe:
    """Where a sampled step goes: own forward and backward time of every layer, and everything else by name.

    Times are the host's: on an accelerator they tell when work was handed over, not how long the device
    took (``notes`` says so); nothing waits for the device. A forward pass that a checkpoint repeats
    during backward is told apart. ``opening`` has to hear the events before all other probes, and this one after them.
    """

    name = "layer times"
    tier = "times"
    signals = (*LAYER_SIGNALS, "time.optimizer", "tile.span", *(signal for signal, _ in NAMED.values()))

    def __init__(self) -> None:
        self.opening = Opening(self)
        self.stamps = Stamps(open=False)
        self.tiles: Tiles | None = None
        """The tiles of the step collected last."""
        self._index: ModelIndex | None = None
        self._places: tuple[Place, ...] = ()
        self._hidden: tuple[str, ...] = ()
        self._hooks = self._fused_hooks = HookSet(self._failed)
        self._on_accelerator = False
        self._keys: dict[int, str] = {}
        self._stepped: set[int] = set()
        self._machine: dict[str, Any] = {}
        self._step = self._ended = self._made = 0
        self._unwatch: Callable[[], None] = _nothing
        self._before_optimizer = REST
        self._after_module = REST
        self._before_evaluation = REST
        self._batch_device: torch.device | None = None
        self.claimed: object = None
        self._layers_left = False
        self._forward_seen = False
        self._ends: list[Any] = []
        self._neighbours: list[Sized] = []
        self._were_there: list[int] = []

    def register(self, key: str, optimizer: torch.optim.Optimizer) -> None:
        """Know `optimizer` by its name in the run; its groups are called ``key[0]`` and so on."""
        self._keys[id(optimizer)] = key

    def attach(self, index: ModelIndex) -> None:
        self._index = index
        self._places, self._hidden = places(index)
        self._on_accelerator = any(param.device.type not in ("cpu", "meta") for param in index.params)

    def detach(self) -> None:
        self._end_step()
        self._take_off()

    def leave_layers(self) -> None:
        """The models are compiled: only what can be stamped from outside is told apart from now on.

        The step under way is dropped, part of it would be layers and part not.
        """
        self._layers_left = True
        self._take_off()
        self._end_step()

    def return_to_layers(self) -> None:
        """They run eagerly for a while."""
        self._layers_left = False

    def open(self, step: int, sampled: bool) -> None:
        """Begin the tiles of a step: until ``begin_step`` is over it is the doctor that works.

        What it did since the tiles of the step before ended belongs to this one.
        """
        self._end_step()
        if sampled and self._index is not None:
            self.stamps = Stamps()
            if step == self._step + 1 and self._ended:
                self.stamps.times.append(self._ended)
                self.stamps.labels.append(DOCTOR)
            self.stamps.stamp(DOCTOR)
        self._step, self._ended, self._forward_seen = step, 0, False

    def take(self) -> Stamps | None:
        """End the step and give its stamps away uncounted; None where there are none, or a hook failed."""
        stamps = self.stamps
        if not stamps.times or self._hooks.failure is not None or self._fused_hooks.failure is not None:
            return None
        self.end()
        self._end_step()
        return stamps

    @property
    def hook_seconds(self) -> float:
        """What the hooks that made the stamps of the step collected last took of it, which no clock of ours sees."""
        return self._made * STAMP_SECONDS

    def end(self) -> None:
        """The step is over: what is collected, reported and prepared from now on belongs to the next."""
        if self.stamps.open:
            self.stamps.end()
            self._ended = self.stamps.times[-1]

    def begin_step(self, step: int, sampled: bool) -> None:
        if not self.stamps.open:
            self.open(step, sampled)
        if not sampled or self._index is None:
            self._take_off()
            return
        if not self._layers_left and not self._still_fit():
            self._take_off()
            self._put_on()
        self.stamps.stamp(REST)

    def _put_on(self) -> None:
        """Register the hooks; they stay for as many sampled steps as follow each other."""
        self._hooks, self._fused_hooks = HookSet(self._failed), HookSet(self._failed)
        for place in self._places:
            if place.root:
                self._hooks.before(place, self._root_began)
            if place.fused_in is None:
                self._install_on(place, self._hooks)
            if place.root:
                self._hooks.after(place, self._root_ended, always=True)
        self._neighbours = [hooks for handle in self._ends if (hooks := hooks_with(handle)) is not None]
        self._were_there = list(map(len, self._neighbours))

    def _still_fit(self) -> bool:
        """Whether the hooks of the sampled step before can serve this one: no other hook has come or gone meanwhile."""
        return bool(self._hooks) and self._hooks.serves_this_thread and list(map(len, self._neighbours)) == self._were_there

    def _take_off(self) -> None:
        self._hooks.remove()
        self._fused_hooks.remove()
        self._ends.clear()
        self._neighbours.clear()

    # events of the loop

    def batch_waited(self, seconds: float, training: bool) -> None:
        waited = DATA_WAIT if training else EVALUATION
        self.stamps.stamp_since(waited, int(seconds * NANOSECONDS))
        self.stamps.stamp(DOCTOR if training else EVALUATION)

    def batch_loaded(self, loader: object, batch: object, training: bool) -> None:
        if training:
            first = next(tensors_in(batch), None)
            self._batch_device = first.device if first is not None else None
            self.stamps.stamp(PREPARE)

    def forward_begins(self, root: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A pass begins, perhaps of a model that hooks cannot look into."""
        self._forward_seen = True
        self.stamps.stamp(FORWARD_OTHER)

    def forward_ended(self, root: nn.Module, output: object) -> None:
        if not self.stamps.running and self.stamps.label == FORWARD_OTHER:
            self.stamps.stamp(LOSS)

    def inputs_arrived(self, inputs: object) -> None:
        """The model receives `inputs`: if they are on another device than the batch was, it was moved in between."""
        if self._batch_device is None or not self.stamps.open:
            return
        first = next(tensors_in(inputs), None)
        if first is not None and first.device != self._batch_device:
            self.stamps.rename(PREPARE, TO_DEVICE)
        self._batch_device = None

    def evaluation_begins(self, root: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if self.stamps.label != EVALUATION:
            self._before_evaluation = self.stamps.label
            self.stamps.stamp(EVALUATION)

    def evaluation_ended(self, root: nn.Module, output: object) -> None:
        if self._before_evaluation not in BETWEEN_STEPS:
            self.stamps.stamp(self._before_evaluation)

    def backward_begins(self, loss: object) -> None:
        """``backward()`` is about to run."""
        if in_backward():
            return
        if self._layers_left and not self._forward_seen:
            self.stamps.rename(PREPARE, REST)  # a forward pass that nobody saw is in it
        self.stamps.stamp(BACKWARD_OTHER if self._layers_left else LOSS)

    def backward_ended(self) -> None:
        """``backward()`` has returned: the tile of the last layer ends here."""
        if not in_backward():
            self.stamps.stamp(REST)

    def part_begins(self, part: str) -> None:
        self.stamps.parts.append(self.stamps.label)
        self.stamps.stamp(PARTS.get(part, REST))

    def part_ended(self, part: str) -> None:
        if self.stamps.parts:
            self.stamps.stamp(self.stamps.parts.pop())

    def optimizer_interrupts(self) -> None:
        """Note what an optimizer's step is about to interrupt."""
        self._before_optimizer = SCALER if self.stamps.label == SCALER else REST

    def gradients_ready(self, optimizer: torch.optim.Optimizer) -> None:
        number = self._first_group(optimizer)
        groups = len(optimizer.param_groups)
        # One group needs no watching. An optimizer that is compiled has been on its first step: it is left alone.
        if groups > 1 and id(optimizer) in self._stepped and number is not None and not torch.compiler.is_compiling():
            self._unwatch()
            self._unwatch = watch_groups(optimizer, lambda group: self.stamps.stamp(FIRST_GROUP - number - group))
        self._stepped.add(id(optimizer))
        self.stamps.stamp(OPTIMIZER if groups > 1 or number is None else FIRST_GROUP - number)

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        self._unwatch()
        self._unwatch = _nothing
        self.stamps.stamp(self._before_optimizer)

    def _first_group(self, optimizer: torch.optim.Optimizer) -> int | None:
        """The number of the optimizer's first group among those of the run."""
        name = f"{self._keys.get(id(optimizer), '')}[0]"
        return self._index.groups.index(name) if self._index is not None and name in self._index.groups else None

    # what was measured

    def collect(self) -> Mapping[str, Measured]:
        """Seconds by layer, by group and by name, NaN where none was seen; {} without any stamps.

        Raises:
            Exception: what went wrong in one of the hooks.
        """
        failure = self._hooks.failure or self._fused_hooks.failure
        try:
            if failure is not None:
                self._take_off()
                raise failure
            if self._index is None or not self.stamps.times:
                return {}
            self.end()
            self._made = len(self.stamps.times)
            self.tiles = tiles = self.stamps.tiles()
            return signals_of(tiles, len(self._index.layers), len(self._index.groups))
        finally:
            self._end_step()

    def facts(self) -> dict[str, Any]:
        """On which machine these times were taken."""
        self._machine = self._machine or machine()
        return {"machine": self._machine}

    def notes(self) -> tuple[str, ...]:
        """What is to be known about these times, one sentence each."""
        clock = "layer times are the host's: the accelerator works on after a call has returned"
        hidden = () if self._layers_left else self._hidden  # else the doctor tells more of it
        return (*hidden, *((clock,) if self._on_accelerator else ()))

    # hooks of one sampled step

    def _failed(self) -> None:
        self.stamps.open = False

    def _end_step(self) -> None:
        if not self.stamps.times and not self._fused_hooks:
            return
        self._fused_hooks.remove()
        self._unwatch()
        self._unwatch = _nothing
        self.claimed = None
        self.stamps.open = False  # node hooks of this step's graph still hold it
        self.stamps = Stamps(open=False)

    def _install_on(self, place: Place, hooks: HookSet) -> None:
        begins, ends = _Begins(self, hooks, place), _Ends(self, hooks, place)
        hooks.keep(place.module.register_forward_pre_hook(begins, with_kwargs=True))
        # also when a checkpoint stops its repetition early
        handle = place.module.register_forward_hook(ends, prepend=True, always_call=True)
        hooks.keep(handle)
        if hooks_beside(handle):
            ends.others_look = True
            hooks.after(place, self._others_looked, always=True)
        if hooks is self._hooks:
            self._ends.append(handle)

    def _in_training(self) -> bool:
        return (torch.is_grad_enabled() or any(self.stamps.roots)) and not is_transformed()

    def _root_began(self, place: Place, module: nn.Module, args: Any) -> None:
        if not self.stamps.open:
            return
        training = self._in_training()
        self.stamps.roots.append(training)
        if not in_backward():
            follow_fused_paths(self._places, self._fused_hooks, training, self._install_on)

    def _root_ended(self, place: Place, module: nn.Module, args: Any, output: Any) -> None:
        self.claimed = None  # it would keep the graph
        if self.stamps.roots:
            self.stamps.roots.pop()

    def _others_looked(self, place: Place, module: nn.Module, args: Any, output: Any) -> None:
        """The last hook after a module: what it interrupted goes on."""
        if self.stamps.label == DOCTOR and self._in_training():
            self.stamps.stamp(self._after_module)

    def follow(self, value: object, label: int) -> None:
        """Stamp `label` when backward reaches what made the tensors in `value`."""
        for tensor in tensors_in(value):
            node = tensor.grad_fn
            if node is not None and node is not self.claimed:
                self.claim(node, label)

    def claim(self, node: Any, label: int) -> None:
        """Stamp `label` when backward reaches `node`, unless another module has claimed it."""
        self.claimed = node
        stamps = self.stamps
        claims: dict[Any, Any] = node.metadata
        if claims.get(TAGGED) is stamps:
            return
        claims[TAGGED] = stamps

        def reached(gradients: object) -> None:
            if stamps.open:
                stamps.times.append(perf_counter_ns())
                stamps.labels.append(label)

        node.register_prehook(reached)

    def ended(self, interrupted: int) -> None:
        """What a module had interrupted, for the last of its hooks."""
        self._after_module = interrupted


class _LayerHook(Hook):
    """One end of a module's tile. On a short step every call counts, so each does everything in one."""

    __slots__ = ("backward", "forward", "hooks", "place", "probe", "recomputed")

    def __init__(self, probe: LayerTimesProbe, hooks: HookSet, place: Place) -> None:
        self.probe, self.hooks, self.place = probe, hooks, place
        self.forward, self.backward, self.recomputed = (label_of(place, kind) for kind in (FORWARD, BACKWARD, RECOMPUTED))


class _Begins(_LayerHook):
    """Before a module: what runs from now on is its own work."""

    __slots__ = ()

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> None:
        if torch.compiler.is_compiling():
            return
        probe, hooks = self.probe, self.hooks
        stamps = probe.stamps
        if not stamps.open or hooks.failure is not None or kwargs is None:  # None: taken off in the middle of this call
            return
        try:
            recomputed = graph_task() != -1
            # other threads: those of DataParallel are left out, the backward pass on an accelerator is not
            if (not recomputed and get_ident() != hooks.thread) or current_transform() is not None:
                return
            running = stamps.running
            if torch.is_grad_enabled():
                if len(args) == 1 and not kwargs and isinstance(args[0], torch.Tensor):
                    node = args[0].grad_fn
                    if node is not None and node is not probe.claimed:  # mostly it is what the module before put out
                        probe.claim(node, label_of(running[-1][0] if running else None, BACKWARD))
                else:
                    probe.follow((args, kwargs), label_of(running[-1][0] if running else None, BACKWARD))
            elif not any(stamps.roots):
                return
            running.append((self.place, stamps.label if running or recomputed else LOSS))
            stamps.times.append(perf_counter_ns())
            stamps.labels.append(self.recomputed if recomputed else self.forward)
        except Exception as error:
            hooks.fail(error)


class _Ends(_LayerHook):
    """The first hook after a module: its work is over, what the hooks of other probes do is the doctor's."""

    __slots__ = ("others_look",)

    def __init__(self, probe: LayerTimesProbe, hooks: HookSet, place: Place) -> None:
        super().__init__(probe, hooks, place)
        self.others_look = False
        """Whether there are such hooks; the last of all then says what goes on."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        if torch.compiler.is_compiling():
            return
        probe, place = self.probe, self.place
        stamps = probe.stamps
        running = stamps.running
        if not stamps.open or not running or self.hooks.failure is not None:
            return
        try:
            if running[-1][0] is not place and all(other is not place for other, _ in running):
                return
            stamps.times.append(perf_counter_ns())
            stamps.labels.append(DOCTOR)
            if torch.is_grad_enabled():
                if isinstance(output, torch.Tensor):
                    node = output.grad_fn
                    if node is not None and node is not probe.claimed:
                        probe.claim(node, self.backward)
                else:
                    probe.follow(output, self.backward)
            other, interrupted = running.pop()
            while other is not place:  # what an exception left behind
                other, interrupted = running.pop()
            if self.others_look:
                probe.ended(interrupted)
            else:
                stamps.times.append(perf_counter_ns())
                stamps.labels.append(interrupted)
        except Exception as error:
            self.hooks.fail(error)


def label_of(place: Place | None, kind: int) -> int:
    """The label of a layer's forward, backward or repeated forward; that of the rest for what is no layer."""
    if place is None or place.layer is None:
        return (FORWARD_OTHER, BACKWARD_OTHER, RECOMPUTED_OTHER)[kind]
    return 3 * place.layer + kind


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


def _nothing() -> None:
    """There is nothing to take off."""
