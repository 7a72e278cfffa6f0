"""Brings subscribers what they asked for: taps a training loop, hands over bundles, collects what is published.

There is no such probe while nobody has subscribed. Hooks inside of the models are there on steps of which somebody wants
to know what layers put out; nothing outlives its step, so steps never mix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nndoctor.discovery import ModelIndex
from nndoctor.interpose import version_of
from nndoctor.probes.base import CONTRACT, Hook, Measured
from nndoctor.probes.data import first_tensor, last_tensor
from nndoctor.probes.forward import HookSet, Place, follow_fused_paths, in_backward, is_transformed, places
from nndoctor.probes.functional import compiled_frames
from nndoctor.probes.joining import FIELDS, Held, Join, Where
from nndoctor.probes.layouts import Layout, Owned, is_chosen, layout
from nndoctor.probes.published import Results, by_signal
from nndoctor.probes.stats import first_floating
from nndoctor.probes.supervision import supervision_of
from nndoctor.signals import Catalogue, Signal
from nndoctor.subscribers import EVENTS, TOPICS, TRAINING, Bundle, Run, Subscriber, Subscription, Value, unknown_topic

IN_LAYERS = frozenset({"activations", "layer_gradients"})
OF_PARAMETERS = frozenset(topic for topic in TOPICS if topic.startswith(("weight", "bias")))
UPDATES = frozenset({"weight_updates", "bias_updates"})
BETWEEN_STEPS = EVENTS.keys() - {"batch_started", "batch_finished"}
"""Events that belong to no step: what is published there is told at once."""


class Loader(Protocol):
    """What is known of the training loader: itself, and passes over it with the batches of the present one."""

    training: object | None

    @property
    def position(self) -> tuple[int, int]: ...


@dataclass(eq=False)
class Seat:
    """One subscription of one subscriber, and what it waits for."""

    subscriber: Subscriber
    asked: Subscription
    join: Join | None
    layers: frozenset[str] = frozenset()
    active: bool = False
    chances: int = 0
    """Steps or events that it could have heard."""
    bundles: int = 0
    overwritten: dict[object, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.topics = frozenset(self.asked.topics)
        self.everywhere = self.asked.layers is None and not self.topics & TOPICS.keys()  # signals, of whatever depth

    def takes_turn(self) -> bool:
        """Whether this one of its chances is among every so many."""
        self.chances += 1
        return (self.chances - 1) % self.asked.every == 0


@dataclass
class LoopState:
    """Where the loop is: steps done, what has begun and has not ended."""

    steps: int = 0
    training: bool = False
    epoch: int | None = None
    batch: int | None = None
    arrived: object | None = None
    """A batch that came and has not begun."""
    loader_seen: bool = False
    trains_in_eval: bool = False
    passed_in_eval: bool = False


@dataclass
class StepState:
    """What has come up in the step under way."""

    batch: int = 0
    turn: int = -1
    calls: dict[str, int] = field(default_factory=dict)
    passes: list[bool] = field(default_factory=list)
    told: set[int] = field(default_factory=set)
    before: dict[int, Tensor] = field(default_factory=dict)
    graded: set[Where] = field(default_factory=set)
    ungraded: dict[str, list[Where]] = field(default_factory=dict)
    labels: Tensor | None = None
    """As the loader gave them."""


class SubscriberProbe:
    """Taps the loop for subscribers.

    Args:
        loader: what is known of the training loader.
        publish: takes signals that were published between two steps.
        failed: told of what a subscriber raised, as (its name, the error); it may raise itself, which strict mode does.
    """

    name = "subscribers"
    tier = CONTRACT

    def __init__(
        self, loader: Loader, publish: Callable[[Mapping[str, Measured]], None], failed: Callable[[str, Exception], None]
    ) -> None:
        self.news = False
        self.declared: dict[str, Signal] = {}
        self._loader, self._publish, self._failed = loader, publish, failed
        self._index: ModelIndex | None = None
        self._seats: list[Seat] = []
        self._listening: dict[str, list[Seat]] = {}
        self._layouts: dict[int, Layout] = {}
        self._numbers: dict[str, dict[str, int]] = {"layer": {}, "param": {}}
        self._hooks = self._fused_hooks = HookSet(self._hook_failed)
        self._root_handles: list[RemovableHandle] = []
        self._places: tuple[Place, ...] = ()
        self._tapping = False
        self._names: dict[int, str] = {}
        self._layers_left = False
        self._failure: Exception | None = None
        self._compiled_before = compiled_frames()
        self._loop = LoopState()
        self._now = StepState()
        self._results = Results()
        self._tag: str | None = TRAINING
        self._between = False
        self._unscaled: tuple[int, Tensor] | None = None
        self._silent: set[str] = set()

    @property
    def is_probing(self) -> bool:
        """Whether a probe pass is under way, which is no part of the training."""
        return self._tag != TRAINING

    @property
    def signals(self) -> tuple[str, ...]:
        return tuple(self.declared)

    @property
    def subscribers(self) -> tuple[Subscriber, ...]:
        return tuple(dict.fromkeys(seat.subscriber for seat in self._seats))

    # ------------------------------------------------------------------ coming and going

    def check(self, subscribers: Sequence[Subscriber], catalogue: Catalogue) -> tuple[Signal, ...]:
        """The signals that `subscribers` add to `catalogue`; nothing is changed.

        Raises:
            TypeError: one of them is no subscriber.
            ValueError: a topic does not exist or is asked for twice, or a signal means something else already.
        """
        added: dict[str, Signal] = {}
        for subscriber in subscribers:
            if not isinstance(subscriber, Subscriber):
                hint = "; hand over an object of it" if isinstance(subscriber, type) else ""
                raise TypeError(f"expected a nndoctor.Subscriber, got {subscriber!r}{hint}")
            for signal in subscriber.signals:
                known = signal.name in catalogue
                other = added.get(signal.name, catalogue[signal.name] if known else signal)
                if other != signal:
                    raise ValueError(f"{called(subscriber)}: {signal.name!r} is the name of another signal: {other.help}")
                added[signal.name] = signal
        published = self.declared.keys() | added.keys()
        for subscriber in subscribers:
            asked = [topic for subscription in subscriber.subscriptions for topic in subscription.topics]
            for topic in asked:
                if topic not in TOPICS and topic not in EVENTS and topic not in published:
                    raise ValueError(f"{called(subscriber)}: {unknown_topic(topic, sorted(published))}")
            if len(set(asked)) < len(asked):
                raise ValueError(f"{called(subscriber)}: a topic belongs to one subscription; asked for are {', '.join(asked)}")
        return tuple(signal for signal in added.values() if signal.name not in catalogue)

    def acceptable(self, brought: Sequence[Subscriber], catalogue: Catalogue) -> tuple[list[Subscriber], list[tuple[str, Exception]]]:
        """Those of installed packages that can be used, and what is wrong with the others."""
        good: list[Subscriber] = []
        bad: list[tuple[str, Exception]] = []
        for subscriber in brought:
            try:
                self.check([*good, subscriber], catalogue)
                good.append(subscriber)
            except (TypeError, ValueError) as error:
                bad.append((called(subscriber), error))
        return good, bad

    def subscribe(self, subscribers: Sequence[Subscriber], run: Run, step: int) -> None:
        """Take on `subscribers`, which were checked; `step` optimizer steps are done."""
        self._loop.steps = step
        self.declared.update((signal.name, signal) for subscriber in subscribers for signal in subscriber.signals)
        for subscriber in subscribers:
            try:
                subscriber.attach(run)
            except Exception as error:
                self._dismiss(subscriber, error)
                continue
            self._seats += [Seat(subscriber, asked, None) for asked in subscriber.subscriptions]
        for seat in self._seats:
            if seat.join is None and len(seat.topics) > 1:
                seat.join = Join({topic: self._fields_of(topic) for topic in seat.asked.topics})
        self._find_layers()
        self._prepare()

    def attach(self, index: ModelIndex) -> None:
        self._index = index

    def begin_step(self, step: int, sampled: bool) -> None: ...

    def detach(self) -> None:
        self._unhook_layers()
        for handle in self._root_handles:
            handle.remove()
        self._root_handles.clear()
        subscribers, self._seats, self._listening = self.subscribers, [], {}
        for subscriber in subscribers:
            self._let_go(subscriber)

    def leave_layers(self) -> None:
        """torch.compile is in use: take all hooks out of what it compiles, for good."""
        self._layers_left = True
        self._unhook_layers()
        for handle in self._root_handles:
            handle.remove()
        self._root_handles.clear()
        self._hook_roots()

    def facts(self) -> Mapping[str, Any]:
        return {"subscribers": [f"{called(seat.subscriber)}: {seat.bundles} bundles" for seat in self._seats]}

    def notes(self) -> tuple[str, ...]:
        """Who got nothing, and why as far as is known; one sentence each."""
        found = []
        for seat in self._seats:
            if seat.bundles or not seat.chances:
                continue
            gone = sorted(self._silent & seat.topics)
            why = "these never came together"
            if self._layers_left and seat.topics & IN_LAYERS:
                why = "what is inside of code that torch.compile has compiled cannot be tapped"
            elif gone:
                why = f"who publishes {', '.join(gone)} was dismissed"
            elif seat.topics & (IN_LAYERS | OF_PARAMETERS) and not seat.layers:
                why = "no layer is among those it listens to"
            elif seat.topics & IN_LAYERS and not self._now.calls:
                why = "no such layer was called where hooks see it; what is inside of code that torch.compile has compiled cannot be tapped"
            found.append(f"{called(seat.subscriber)} got no {' with '.join(seat.asked.topics)}: {why}")
        return tuple(found)

    def _fields_of(self, topic: str) -> frozenset[str]:
        """What the place of a topic says; a published number is as precise as what it was made of."""
        if topic in TOPICS:
            return FIELDS[topic]
        signal = self.declared.get(topic)
        makers = [s for s in self.subscribers if any(own.name == topic for own in s.signals)]
        asked = {name for maker in makers for subscription in maker.subscriptions for name in subscription.topics}
        found = frozenset[str]().union(*(self._fields_of(name) for name in asked))
        return frozenset() if signal is not None and signal.per == "run" and "layer" in found else found

    def _dismiss(self, subscriber: Subscriber, error: Exception) -> None:
        """A subscriber raised: it is taken off and named, and what it published is silent; the training goes on."""
        self._seats = [seat for seat in self._seats if seat.subscriber is not subscriber]
        spoken = {signal.name for other in self.subscribers for signal in other.signals}
        self._silent |= {signal.name for signal in subscriber.signals} - spoken
        self._find_listeners()
        self._let_go(subscriber)
        self._failed(called(subscriber), error)

    def _let_go(self, subscriber: Subscriber) -> None:
        try:
            subscriber.detach()
        except Exception as error:
            self._failed(f"detaching {called(subscriber)}", error)

    # ------------------------------------------------------------------ layers and hooks

    def _find_layers(self) -> None:
        """Find out which layers each subscription listens to."""
        index = self._index
        assert index is not None
        self._layouts = {depth: layout(index, depth) for depth in sorted({seat.asked.depth for seat in self._seats})}
        names: dict[int, str] = {}
        for seat in self._seats:
            modules = self._layouts[seat.asked.depth].modules
            chosen = {name: module for name, (_, module) in modules.items() if is_chosen(name, module, seat.asked.layers)}
            seat.layers = frozenset(chosen)
            if seat.topics & IN_LAYERS:
                names.update((id(module), name) for name, module in chosen.items())
        self._names = names
        self._places = places(index)[0]
        self._numbers = {
            "layer": {name: number for known in self._layouts.values() for name, (number, _) in known.modules.items()},
            "param": {name: number for number, name in enumerate(index.param_names)},
        }
        self._find_listeners()
        if not self._root_handles:
            self._hook_roots()

    def _find_listeners(self) -> None:
        self._listening = {}
        for seat in self._seats:
            for topic in seat.asked.topics:
                self._listening.setdefault(topic, []).append(seat)

    def _hook_roots(self) -> None:
        """Have hooks on the forward passes of whole models; compiled ones only where these run outside of the compiled code."""
        assert self._index is not None
        for root in self._index.roots.values():
            if not self._layers_left or hasattr(root, "_orig_mod"):
                self._root_handles.append(root.register_forward_pre_hook(Hook(self._pass_begins), with_kwargs=True))
                self._root_handles.append(root.register_forward_hook(Hook(self._pass_ended), always_call=True))

    def _prepare(self) -> None:
        """Decide who listens on the next step, and have hooks in the models if somebody wants what layers put out."""
        wanted = False
        for seat in self._seats:
            if not seat.topics & EVENTS.keys():
                seat.active = seat.asked.tag in (TRAINING, None) and self._loop.steps % seat.asked.every == 0
                seat.chances += seat.active
                wanted |= seat.active and bool(seat.topics & IN_LAYERS)
        if wanted and not self._layers_left and compiled_frames() > self._compiled_before:
            self.leave_layers()
        if wanted and not self._tapping:
            self._hook_layers()
        elif not wanted and self._tapping:
            self._unhook_layers()

    def _hook_layers(self, fused: bool = False) -> None:
        """Have hooks on the layers; inside of encoder layers that may fuse only if `fused`, else as each pass allows."""
        if self._layers_left:
            return
        self._tapping = True
        self._hooks, self._fused_hooks = HookSet(self._hook_failed), HookSet(self._hook_failed)
        for place in self._places:
            if fused or place.fused_in is None:
                self._hook_layer(place, self._hooks)

    def _hook_layer(self, place: Place, hooks: HookSet) -> None:
        if id(place.module) in self._names:
            hooks.after(place, self._layer_ended)

    def _unhook_layers(self) -> None:
        self._tapping = False
        self._hooks.remove()
        self._fused_hooks.remove()

    def _hook_failed(self) -> None:
        self.news = True

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Keep what goes wrong in a hook on a whole model for ``collect``: it must not reach the training."""
        try:
            yield
        except Exception as error:
            self._failure = error
            self.news = True

    # ------------------------------------------------------------------ forward passes

    def _counts(self, root: nn.Module) -> bool:
        """Whether a pass that begins is one that somebody may want to hear of."""
        if is_transformed() or in_backward():
            return False
        if self._tag != TRAINING:
            return self._tag is not None
        if not torch.is_grad_enabled():
            return False
        self._loop.passed_in_eval = not root.training
        return root.training or self._loop.trains_in_eval

    def _pass_begins(self, root: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> None:
        if kwargs is None:  # taken off in the middle of this call
            return
        with self._kept():
            now = self._now
            counts = self._counts(root)
            now.passes.append(counts)
            if self._tapping and self._tag == TRAINING:
                follow_fused_paths(self._places, self._fused_hooks, counts, self._hook_layer)
            if not counts:
                return
            if self._tag == TRAINING:
                self._ensure_batch()
            now.turn += 1
            if "inputs" in self._listening:
                found = first_tensor((*args, *kwargs.values()))
                if found is not None:
                    self._tell("inputs", Where(batch=now.batch, turn=now.turn), found.detach(), kind="inputs")

    def _pass_ended(self, root: nn.Module, args: object, output: object) -> None:
        with self._kept():
            now = self._now
            counts = now.passes.pop() if now.passes else False
            if counts and "outputs" in self._listening:
                found = first_tensor(output)
                found = first_floating(output) if found is None else found
                if found is not None:
                    self._tell("outputs", Where(batch=now.batch, turn=now.turn), found.detach(), kind="outputs")

    def _layer_ended(self, place: Place, module: nn.Module, args: object, output: object) -> None:
        now, name = self._now, self._names[id(place.module)]
        found = first_floating(output)
        if found is None or is_transformed() or (found.is_cuda and torch.cuda.is_current_stream_capturing()):
            return
        if in_backward():  # an activation checkpoint repeats the pass: only now are there gradients to come
            waiting = now.ungraded.get(name, [])
            if len(waiting) == 1 and found.requires_grad:
                self._await_gradient(found, waiting.pop())
            return
        if not (now.passes[0] if now.passes else self._counts(module)):
            return
        if not now.passes and self._tag == TRAINING:
            self._ensure_batch()
        call = now.calls.get(name, 0)
        now.calls[name] = call + 1
        where = Where(name, now.batch, now.turn, call)
        if "layer_gradients" in self._listening and self._tag == TRAINING:
            if found.requires_grad:
                self._await_gradient(found, where)
            else:
                now.ungraded.setdefault(name, []).append(where)
        self._tell("activations", where, found.detach(), kind=("activations", name))

    def _await_gradient(self, output: Tensor, where: Where) -> None:
        now = self._now

        def arrived(gradient: Tensor) -> None:
            if self._now is now and where not in now.graded:
                now.graded.add(where)
                with self._kept():
                    self._tell("layer_gradients", where, gradient.detach(), kind=("layer_gradients", where.layer))

        output.register_hook(arrived)  # type: ignore[no-untyped-call]

    # ------------------------------------------------------------------ backward and step

    def loss_scaled(self, loss: object, scaled: object) -> None:
        if isinstance(loss, Tensor):
            self._unscaled = (id(scaled), loss.detach())

    def backward_begins(self, loss: Tensor) -> None:
        loop, now = self._loop, self._now
        loop.trains_in_eval = loop.trains_in_eval or loop.passed_in_eval
        self._ensure_batch()
        if self._is_wanted("labels"):
            labels = self._labels(loss)
            if labels is not None:
                self._tell("labels", Where(batch=now.batch), labels.detach(), kind="labels")
        if "loss" in self._listening:
            unscaled = self._unscaled
            value = unscaled[1] if unscaled is not None and unscaled[0] == id(loss) else loss.detach()
            self._tell("loss", Where(batch=now.batch), value.reshape(()), kind="loss")
        self._unscaled = None

    def _labels(self, loss: Tensor) -> Tensor | None:
        """The targets of a loss: those in its graph, which a loader that works ahead cannot mix up, else the loader's."""
        found, given = supervision_of(loss), self._now.labels
        if found is None:
            return given
        return found.target.view_as(given) if given is not None and given.numel() == found.target.numel() else found.target

    def _is_wanted(self, topic: str) -> bool:
        return any(seat.active for seat in self._listening.get(topic, ()))

    def backward_ended(self) -> None:
        self._now.batch += 1

    def gradients_ready(self, optimizer: torch.optim.Optimizer) -> None:
        """Tell parameters and gradients, before the step; where a closure is called several times, the first one counts."""
        if not self._listening.keys() & OF_PARAMETERS:
            return
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        fresh = {number for number in held if number not in self._now.told}
        if not fresh:
            return
        for depth, known in self._layouts.items():
            seats = [seat for seat in self._seats if seat.active and seat.asked.depth == depth and seat.topics & OF_PARAMETERS]
            changing = [seat for seat in seats if seat.topics & UPDATES]
            for owned in known.parameters:
                if id(owned.parameter) in fresh and any(owned.layer in seat.layers for seat in seats):
                    copied = any(owned.layer in seat.layers for seat in changing)
                    self._tell_parameter(owned, depth, copied)
        self._now.told |= fresh

    def _tell_parameter(self, owned: Owned, depth: int, copied: bool) -> None:
        parameter, before = owned.parameter, self._now.before
        if copied and id(parameter) not in before:
            before[id(parameter)] = parameter.detach().clone()
        kind, where = _place_of(owned)
        self._tell(f"{kind}s" if kind == "weight" else "biases", where, before.get(id(parameter), parameter.detach()), depth=depth)
        gradient = parameter.grad
        if gradient is not None:
            dense = gradient.detach().to_dense() if gradient.layout is not torch.strided else gradient.detach()
            self._tell(f"{kind}_gradients", where, dense, kind=(kind, owned.name), depth=depth)

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        before = self._now.before
        if not before:
            return
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]} & before.keys()
        for depth, known in self._layouts.items():
            for owned in known.parameters:
                if id(owned.parameter) in held:
                    kind, where = _place_of(owned)
                    update = owned.parameter.detach() - before[id(owned.parameter)]
                    self._tell(f"{kind}_updates", where, update, depth=depth)
        for number in held:
            del before[number]

    def scaler_stepped(self, optimizer: torch.optim.Optimizer) -> None:
        """A step that the scaler left out has nothing to tell, neither have its passes."""
        if not self._now.told:
            self._results = Results()
            self._forget_step()

    def step_ends(self, step: int) -> None:
        """The optimizers have stepped: what was published belongs to step number `step`."""
        if step == self._loop.steps:
            return  # told again, because there was news
        for name, signal in self.declared.items():
            if signal.per == "run" and name in self._listening:
                value = self._results.mean(name, 0)
                if value is not None and not self._fields_of(name):
                    self._tell(name, Where(), value)
        self._finish_batch()
        self._loop.steps = step
        self._forget_step()
        assert self._index is not None
        if any(len(known.parameters) < len(self._index.params) for known in self._layouts.values()):
            self._find_layers()  # lazy modules have got their parameters
        self._prepare()

    def _forget_step(self) -> None:
        passes, self._now = self._now.passes, StepState()
        self._now.passes = passes
        for seat in self._seats:
            if seat.join is not None:
                seat.join.clear()

    # ------------------------------------------------------------------ events

    def batch_loaded(self, loader: object, batch: object, training: bool) -> None:
        if not training or not torch.is_grad_enabled():
            return
        self._finish_batch()
        self._loop.arrived, self._loop.loader_seen = batch, True
        if self._loader.position[0] >= 0:  # else it turns out at the first pass whether this is training
            self._ensure_batch()

    def loader_started(self, loader: object) -> None:
        if loader is self._loader.training and torch.is_grad_enabled():
            self._finish_epoch()

    def loader_ended(self, loader: object) -> None:
        if loader is self._loader.training and torch.is_grad_enabled():
            self._finish_epoch()

    def training_ends(self) -> None:
        """The doctor is about to be closed."""
        self._finish_epoch()
        if self._loop.training:
            self._loop.training = False
            self._tell_event("training_finished", self._loop.steps)

    def _ensure_batch(self) -> None:
        """A batch begins, unless one is under way: with it, perhaps, the epoch and the training."""
        loop = self._loop
        if loop.batch is not None or (loop.loader_seen and loop.arrived is None):
            return
        passes, served = self._loader.position
        if not loop.training:
            loop.training = True
            self._tell_event("training_started", 0)
        if loop.loader_seen and loop.epoch != max(passes, 0):
            self._finish_epoch()
            loop.epoch = max(passes, 0)
            self._tell_event("epoch_started", loop.epoch)
        loop.batch = max(served - 1, 0) if loop.loader_seen else loop.steps
        self._tell_event("batch_started", loop.batch)
        batch, loop.arrived = loop.arrived, None
        labels = last_tensor(batch)
        self._now.labels = labels if labels is not first_tensor(batch) else None

    def _finish_batch(self) -> None:
        batch, self._loop.batch = self._loop.batch, None
        if batch is not None:
            self._tell_event("batch_finished", batch)

    def _finish_epoch(self) -> None:
        self._finish_batch()
        epoch, self._loop.epoch = self._loop.epoch, None
        if epoch is not None:
            self._tell_event("epoch_finished", epoch)

    def _tell_event(self, event: str, number: int) -> None:
        self._between = event in BETWEEN_STEPS
        for seat in self._listening.get(event, ()):
            if seat.takes_turn():
                self._deliver(seat, Where(), {event: number})
        if self._between:
            self._between = False
            self._publish_between_steps()

    def _publish_between_steps(self) -> None:
        if self._results and not self._now.told and not self._now.passes:
            self.news = False
            self._publish(self._take())

    # ------------------------------------------------------------------ probe passes

    @contextmanager
    def probing(self, tag: str | None) -> Iterator[None]:
        """Until the end of the block, passes are told with this tag; None: not at all."""
        outer, self._tag = self._tag, tag
        listening = [seat for seat in self._seats if not seat.topics & EVENTS.keys()]
        resting, now = [(seat, seat.active) for seat in listening], self._now
        self._now = StepState()
        for seat in listening:
            seat.active = tag is not None and seat.asked.tag in (tag, None) and seat.takes_turn()
        tapped = self._tapping
        self._unhook_layers()
        if any(seat.active and seat.topics & IN_LAYERS for seat in listening):
            self._hook_layers(fused=True)
        try:
            yield
        finally:
            self._tag, self._now = outer, now
            for seat, active in resting:
                seat.active = active
            self._unhook_layers()
            if tapped:
                self._hook_layers()
            self._publish_between_steps()

    # ------------------------------------------------------------------ bundles

    def _tell(self, topic: str, where: Where, value: Any, kind: object = None, depth: int | None = None) -> None:
        """Hand a message to those who listen to its topic and layer, and bundles to those for whom it was the last one."""
        for seat in self._listening.get(topic, ()):
            if not seat.active or not (where.layer is None or seat.everywhere or where.layer in seat.layers):
                continue
            if depth is not None and depth != seat.asked.depth:
                continue
            if seat.join is None:
                self._deliver(seat, where, {topic: value})
                continue
            for place, held in seat.join.add(topic, where, Held(value, kind, seat.overwritten)):
                if all(one.intact for one in held.values()):
                    self._deliver(seat, place, {name: one.value for name, one in held.items()})

    def _deliver(self, seat: Seat, where: Where, values: Mapping[str, Any]) -> None:
        subscriber = seat.subscriber
        if seat not in self._seats:
            return  # dismissed a moment ago
        seat.bundles += 1
        passes = self._loader.position[0]
        between = self._tag != TRAINING or self._between
        bundle = Bundle(
            step=self._loop.steps + (not between),
            epoch=None if passes < 0 and not self._loop.loader_seen else max(passes, 0),
            layer=where.layer,
            parameter=where.weight or where.bias,
            call=where.call or 0,
            batch=where.batch or 0,
            tag=self._tag or TRAINING,
            values=values,
        )
        tensors = [value for value in values.values() if isinstance(value, Tensor) and not value.is_inference()]
        versions = [version_of(tensor) for tensor in tensors]
        try:
            with torch.no_grad():
                published = subscriber.receive(bundle)
            if [version_of(tensor) for tensor in tensors] != versions:
                raise ValueError(f"wrote into what it got ({', '.join(values)}), which the training uses")
            signals = {signal.name: signal for signal in subscriber.signals}
            numbers = [
                (signals[name], place, one)
                for name, value in by_signal(published, signals).items()
                for place, one in (_places(signals[name], value) if isinstance(value, dict) else ((where, value),))
            ]
            targets = [self._target(signal, place) for signal, place, _ in numbers]
        except Exception as error:
            self._dismiss(subscriber, error)
            return
        for (signal, place, value), target in zip(numbers, targets, strict=True):
            self._results.add(signal.name, target, value)
            self.news = True
            if signal.name in self._listening and (signal.per != "run" or place.layer is None):
                self._tell(signal.name, place, value)

    def _target(self, signal: Signal, where: Where) -> int:
        """Number of the target of a signal that a bundle from there belongs to. Raises ValueError where it has none."""
        if signal.per == "run":
            return 0
        name = where.layer if signal.per == "layer" else (where.weight or where.bias) if signal.per == "param" else None
        if name is None:
            raise ValueError(f"{signal.name} is per {signal.per}, but what was asked for belongs to no {signal.per}")
        if name not in self._numbers[signal.per]:
            raise ValueError(f"{signal.name}: there is no {signal.per} called {name!r}")
        return self._numbers[signal.per][name]

    def collect(self) -> Mapping[str, Measured]:
        """What was published in the step.

        Raises:
            Exception: what went wrong in a hook.
        """
        self.news = False
        failure = self._failure or self._hooks.failure or self._fused_hooks.failure
        if failure is not None:
            self._failure = None
            raise failure
        return self._take()

    def _take(self) -> dict[str, Measured]:
        index = self._index
        assert index is not None
        sizes = {"run": 1, "layer": len(index.layers), "param": len(index.params)}
        return self._results.take({name: sizes[signal.per] for name, signal in self.declared.items()})


def _place_of(owned: Owned) -> tuple[str, Where]:
    """Whether it is a weight or a bias, and the place of its messages."""
    if owned.bias:
        return "bias", Where(layer=owned.layer, bias=owned.name)
    return "weight", Where(layer=owned.layer, weight=owned.name)


def _places(signal: Signal, values: Mapping[str, Value]) -> Iterator[tuple[Where, Value]]:
    """Numbers that a subscriber has published by name, each with its place."""
    for name, value in values.items():
        yield Where(layer=name) if signal.per == "layer" else Where(weight=name), value


def called(subscriber: Subscriber) -> str:
    """What a subscriber is called in messages."""
    return subscriber.name or type(subscriber).__name__


@contextmanager
def undisturbed(models: Sequence[nn.Module]) -> Iterator[None]:
    """Evaluation mode without gradients for a block; modes of all parts, buffers and random generators are put back, also on an error."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    buffers = [(buffer, buffer.detach().clone()) for model in models for buffer in model.buffers()]
    devices = sorted({parameter.device.index or 0 for model in models for parameter in model.parameters() if parameter.is_cuda})
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            for model in models:
                model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)
