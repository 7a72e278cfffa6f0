"""Measurements of one's own: a subscriber names the tensors it needs, gets them step by step, and may publish signals.

    @nndoctor.metric(unit="fraction")
    def sparsity(activations):
        return (activations == 0).float().mean()

    nndoctor.wrap(model, optimizer, subscribers=[sparsity.on(layers="block*", every=10)])

A *topic* is what can be asked for: a tensor of the step (``TOPICS``), an event of the loop (``EVENTS``), or a signal that
another subscriber publishes. A *subscription* asks for some of them at once, a *bundle* brings them, all of the same step.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias, overload

import torch
from torch import Tensor, nn

from nndoctor.signals import Axis, Signal

TOPICS: Mapping[str, str] = {
    "inputs": "what a whole model was called with: the first tensor",
    "activations": "what a layer put out: the first floating-point tensor",
    "outputs": "what a whole model put out: the first tensor",
    "labels": "targets of the batch, from the loader or from the loss",
    "loss": "the scalar handed to backward(), before a gradient scaler multiplied it",
    "layer_gradients": "gradient of the loss by what a layer put out",
    "weights": "parameters but biases, before the step",
    "biases": "biases, before the step",
    "weight_gradients": "gradients of weights as the optimizer sees them",
    "bias_gradients": "the same of biases",
    "weight_updates": "weights after the step minus weights before it",
    "bias_updates": "the same of biases",
}
"""Tensors that can be asked for, in the order in which they come up in a step."""

EVENTS: Mapping[str, str] = {
    "training_started": "before the first batch",
    "epoch_started": "the training loader begins a pass: its number, from 0",
    "batch_started": "a training batch has arrived: its number in the epoch, from 0",
    "batch_finished": "its optimizer step is over; where gradients are accumulated, its backward",
    "epoch_finished": "the training loader has no more batches: the number of the epoch",
    "training_finished": "the doctor is closed: the number of optimizer steps",
}
"""Events that can be asked for; each alone, they wait for nothing. Their value is a number."""

TRAINING = "training"
"""Tag of what belongs to training."""

Value: TypeAlias = Tensor | float
"""One published number; a tensor of one element may stay on its device."""

Published: TypeAlias = Mapping[str, Value | Mapping[str, Value]] | Value | None
"""What ``receive`` returns: by signal, numbers for what the bundle is of, or by name of layer or parameter; or the number of
the only signal."""

LayerFilter: TypeAlias = str | type[nn.Module] | Sequence[str | type[nn.Module]]


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a subscription asked for, all of the same step; for topics of layers also of the same layer, parameter and call.

    Tensors are detached, on their devices, and shared with the training: read them, keep copies, never write into them.

    Args:
        step: number of the optimizer step, 1 for the first; 0 before it.
        epoch: passes over the training loader before this one, None where there is no loader.
        layer: name of the layer, None for what belongs to the whole run.
        parameter: name of the parameter, where a topic of parameters is among the topics.
        call: number of the layer's call in this step, for shared and recursive modules.
        batch: number of the micro-batch in this step, for accumulated gradients.
        tag: ``training``, or what a probe pass was tagged with.
        values: what was asked for, by topic.

    Raises:
        ValueError: `step` or `epoch` is negative.
    """

    step: int
    epoch: int | None
    layer: str | None
    parameter: str | None
    call: int
    batch: int
    tag: str
    values: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.step < 0 or (self.epoch is not None and self.epoch < 0):
            raise ValueError(f"steps and epochs are counted from 0, got step {self.step}, epoch {self.epoch}")

    def __getitem__(self, topic: str) -> Any:
        return self.values[topic]

    def __contains__(self, topic: object) -> bool:
        return topic in self.values


@dataclass(frozen=True, slots=True)
class Subscription:
    """What to listen to, where and how often.

    Args:
        topics: names of ``TOPICS``, one of ``EVENTS``, or signals that other subscribers publish.
        layers: only these: a glob on their names, the name of a class or of one that it is derived from, a class; or
            several of them. None: all.
        depth: -1: layers as the doctor knows them; n: what lies n levels below the model, or leaves above that; 0: the
            whole model.
        every: steps between two bundles, the first step is one of them; for an event, every so many of them.
        tag: what to listen to: ``training``, probe passes with this tag, or None for everything.

    Raises:
        ValueError: there is no topic, or one twice, an event is not alone, `every` or `depth` is out of range.
    """

    topics: tuple[str, ...]
    layers: tuple[str | type[nn.Module], ...] | None = None
    depth: int = -1
    every: int = 1
    tag: str | None = TRAINING

    def __init__(
        self,
        topics: str | Sequence[str],
        layers: LayerFilter | None = None,
        depth: int = -1,
        every: int = 1,
        tag: str | None = TRAINING,
    ) -> None:
        asked = (topics,) if isinstance(topics, str) else tuple(topics)
        if not asked or len(set(asked)) < len(asked):
            raise ValueError(f"a subscription asks for one or more topics, each once; got {asked}")
        events = [topic for topic in asked if topic in EVENTS]
        if events and len(asked) > 1:
            raise ValueError(f"{events[0]} is an event and is asked for alone; use a second subscription for the rest")
        if every < 1 or depth < -1:
            raise ValueError(f"expected every of at least 1 and depth of at least -1, got every={every}, depth={depth}")
        chosen = None if layers is None else (layers,) if isinstance(layers, (str, type)) else tuple(layers)
        for name, value in (("topics", asked), ("layers", chosen), ("depth", depth), ("every", every), ("tag", tag)):
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True)
class Run:
    """What a subscriber is told of the run that it is attached to.

    Args:
        models: by name; the only one is called ``""``.
        optimizers: by name.
        folder: of the run record.
        loss_fn: the loss, where the doctor was told.
        probing: as ``nndoctor.Doctor.probing``.
        parameters: by the names that bundles carry.
    """

    models: Mapping[str, nn.Module]
    optimizers: Mapping[str, torch.optim.Optimizer]
    folder: Path
    loss_fn: Callable[..., Tensor] | None
    probing: Callable[..., AbstractContextManager[None]]
    parameters: Callable[[], Mapping[str, nn.Parameter]]

    def optimizer_state(self, parameter: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """What the optimizer keeps for a parameter (``exp_avg``, ``step``...), and the settings of its group.

        Raises:
            KeyError: no optimizer holds a parameter of that name.
        """
        wanted = self.parameters()[parameter]
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                if any(held is wanted for held in group["params"]):
                    return optimizer.state.get(wanted, {}), group
        raise KeyError(f"no optimizer holds {parameter!r}")


class Subscriber:
    """A measurement of one's own: derive, say what to listen to and what is published, and write ``receive``.

    ``receive`` runs in the training, without gradients: it must not wait for the device, draw from the default random
    generators or write into what it gets. One that raises is dismissed and named in the report. State belongs into
    ``attach``. ``nndoctor.metric`` makes a subscriber of a function.

    Attributes:
        name: in messages; the class's own name where it is empty.
        subscriptions: what it listens to; a topic belongs to one of them.
        signals: what it publishes, for rules, panel, report and other subscribers. A signal ``per`` layer, param or run
            gets the mean of what was returned for that target in a step.
    """

    name: str = ""
    subscriptions: tuple[Subscription, ...] = ()
    signals: tuple[Signal, ...] = ()

    def attach(self, run: Run) -> None:
        """A run begins; make what you keep between bundles here."""

    def receive(self, bundle: Bundle) -> Published:
        """A bundle has arrived; what is returned is published.

        Raises:
            NotImplementedError: the subscriber has no ``receive`` of its own.
        """
        raise NotImplementedError(f"{type(self).__name__} has no receive()")

    def detach(self) -> None:
        """The run is over, or the subscriber was dismissed."""

    def on(
        self,
        *,
        layers: LayerFilter | None = None,
        depth: int | None = None,
        every: int | None = None,
        tag: str | None = None,
    ) -> Subscriber:
        """The same subscriber with other subscriptions: what is given here takes the place of what they say."""
        given = {"layers": layers, "depth": depth, "every": every, "tag": tag}
        changed = {name: value for name, value in given.items() if value is not None}
        other = copy.copy(self)
        other.subscriptions = tuple(
            Subscription(**{**_fields(subscription), **changed}) for subscription in self.subscriptions
        )
        return other


def _fields(subscription: Subscription) -> dict[str, Any]:
    return {name: getattr(subscription, name) for name in ("topics", "layers", "depth", "every", "tag")}


BESIDES = ("step", "epoch", "layer", "parameter", "call", "batch", "tag")
"""Parameters of a metric's function that get the field of the bundle instead of a topic."""


class FunctionSubscriber(Subscriber):
    """A subscriber made of a function by ``nndoctor.metric``; calling it calls the function."""

    def __init__(self, function: Callable[..., Published], topics: Sequence[str], signals: Sequence[Signal]) -> None:
        self.name = function.__name__
        self.function = function
        self.subscriptions = (Subscription(topics),)
        self.signals = tuple(signals)
        parameters = tuple(inspect.signature(function).parameters)
        free = [name for name in parameters if name not in BESIDES]
        self._topics = dict(zip(free, topics, strict=True))
        self._besides = tuple(name for name in parameters if name in BESIDES)

    def receive(self, bundle: Bundle) -> Published:
        values = {name: bundle.values[topic] for name, topic in self._topics.items()}
        values.update((name, getattr(bundle, name)) for name in self._besides)
        return self.function(**values)

    def __call__(self, *args: Any, **kwargs: Any) -> Published:
        return self.function(*args, **kwargs)


@overload
def metric(function: Callable[..., Published], /) -> FunctionSubscriber: ...


@overload
def metric(
    *,
    name: str | None = None,
    unit: str = "1",
    help: str = "",
    per: Axis | None = None,
    topics: Sequence[str] | None = None,
) -> Callable[[Callable[..., Published]], FunctionSubscriber]: ...


def metric(
    function: Callable[..., Published] | None = None,
    /,
    *,
    name: str | None = None,
    unit: str = "1",
    help: str = "",
    per: Axis | None = None,
    topics: Sequence[str] | None = None,
) -> FunctionSubscriber | Callable[[Callable[..., Published]], FunctionSubscriber]:
    """Make a subscriber of a function; its parameters are named after the topics that it needs.

    What it returns is published as the signal ``metric.<name of the function>``; None publishes nothing. Parameters called
    ``step``, ``epoch``, ``layer``, ``parameter``, ``call``, ``batch`` or ``tag`` get that field of the bundle.

    Args:
        function: what measures.
        name: of the signal.
        unit: of the signal, a word as ``fraction``.
        help: one sentence with the formula; the function's docstring by default.
        per: ``param``, ``layer`` or ``run``; by default the smallest that the topics belong to. The mean is published where
            there are several bundles for one.
        topics: what the parameters get, in their order, where names will not do: signals of other subscribers.

    Raises:
        ValueError: there is no such topic; the topics are listed.

    >>> @metric(unit="fraction")
    ... def sparsity(activations):
    ...     "Share of the outputs that are zero."
    ...     return (activations == 0).float().mean()
    >>> sparsity.signals[0].name, sparsity.signals[0].per
    ('metric.sparsity', 'layer')
    >>> float(sparsity(torch.tensor([0.0, 1.0])))
    0.5
    """

    def make(function: Callable[..., Published]) -> FunctionSubscriber:
        named = [p for p in inspect.signature(function).parameters if p not in BESIDES]
        asked = named if topics is None else list(topics)
        if topics is None:
            for topic in asked:
                if topic not in TOPICS and topic not in EVENTS:
                    raise ValueError(unknown_topic(topic, ()))
        if len(asked) != len(named):
            raise ValueError(f"{function.__name__} takes {len(named)} topics, got {len(asked)}: {', '.join(asked)}")
        told = help or " ".join((inspect.getdoc(function) or f"As computed by {function.__name__}().").split())
        signal = Signal(name or f"metric.{function.__name__}", per or axis_of(asked), unit, told)
        return FunctionSubscriber(function, asked, (signal,))

    return make if function is None else make(function)


def axis_of(topics: Iterable[str]) -> Axis:
    """What topics belong to together: a parameter, a layer, or the run. Signals of others count as the run's."""
    asked = set(topics) & TOPICS.keys()
    weights, biases = (bool({t for t in asked if t.startswith(kind)}) for kind in ("weight", "bias"))
    if asked & {"activations", "layer_gradients"} or (weights and biases):
        return "layer"
    return "param" if weights or biases else "run"


def unknown_topic(topic: str, published: Iterable[str]) -> str:
    """What to say of a topic that there is not."""
    known = (*TOPICS, *EVENTS, *published)
    close = get_close_matches(topic, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"there is no topic {topic!r}; {hint}the topics are {', '.join(known)}"


__all__ = ["EVENTS", "TOPICS", "TRAINING", "Bundle", "Published", "Run", "Subscriber", "Subscription", "Value", "metric"]
