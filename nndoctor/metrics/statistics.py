"""Statistics over the elements of a tensor: mean, variance, sum, norms, the ratio of two norms; and means over layers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from nndoctor.metrics.kinds import KINDS, TENSORS, Kind
from nndoctor.signals import Signal
from nndoctor.subscribers import Bundle, Published, Run, Subscriber, Subscription, axis_of


class Statistic(Subscriber):
    """Publishes one number per tensor of a topic as ``<topic>.<name of the statistic>``."""

    def __init__(self, topic: str, name: str, kind: Kind, function: Callable[[Tensor], Tensor]) -> None:
        check_topic(topic)
        self.name = f"{topic}.{name}"
        self.subscriptions = (Subscription(topic),)
        self.signals = (kind.signal(self.name, axis_of([topic])),)
        self._topic, self._function = topic, function

    def receive(self, bundle: Bundle) -> Published:
        values = bundle[self._topic]
        return self._function(values if values.is_floating_point() else values.float()) if values.numel() else None


def mean(topic: str) -> Subscriber:
    """Mean over the elements: ``<topic>.mean``."""
    return Statistic(topic, "mean", KINDS["TOPIC.mean"], torch.mean)


def variance(topic: str) -> Subscriber:
    """Unbiased variance over the elements, 0 for a single one: ``<topic>.variance``."""
    return Statistic(topic, "variance", KINDS["TOPIC.variance"], unbiased_variance)


def total(topic: str) -> Subscriber:
    """Sum over the elements: ``<topic>.sum``."""
    return Statistic(topic, "sum", KINDS["TOPIC.sum"], torch.sum)


def norm(topic: str, p: float = 2) -> Subscriber:
    """``(sum |x| ** p) ** (1 / p)`` over the elements: ``<topic>.norm<p>``. Raises ValueError for a `p` below 1."""
    if not p >= 1:
        raise ValueError(f"p: expected a number of at least 1, got {p}")
    name = f"norm{p:g}".replace(".", "_")  # a dot would part the name of the signal
    return Statistic(topic, name, KINDS["TOPIC.normP"], lambda values: torch.linalg.vector_norm(values, p))


class Ratio(Subscriber):
    """Publishes ``|first| / |second|`` as ``<first>.per.<second>``, averaged over the last `average` measurements."""

    def __init__(self, first: str, second: str, average: int = 1) -> None:
        check_topic(first)
        check_topic(second)
        if average < 1:
            raise ValueError(f"average: expected a number of measurements of at least 1, got {average}")
        self.name = f"{first}.per.{second}"
        self.subscriptions = (Subscription((first, second)),)
        self.signals = (KINDS["TOPIC.per.TOPIC"].signal(self.name, axis_of([first, second])),)
        self._pair, self._average = (first, second), average

    def attach(self, run: Run) -> None:
        self._recent: dict[tuple[str | None, str | None, int], deque[Tensor]] = {}

    def receive(self, bundle: Bundle) -> Published:
        above, below = (torch.linalg.vector_norm(bundle[topic].float()) for topic in self._pair)
        ratio = torch.where(below > 0, above / below, torch.nan)
        if self._average == 1:
            return ratio
        recent = self._recent.setdefault((bundle.layer, bundle.parameter, bundle.call), deque(maxlen=self._average))
        recent.append(ratio)
        return torch.where(below > 0, torch.stack(tuple(recent)).nanmean(), torch.nan)


def ratio(first: str, second: str, average: int = 1) -> Subscriber:
    """Euclidean norm of one topic over that of another, as ``weight_updates`` over ``weights``; absent where that is 0.

    Args:
        average: measurements that are averaged over.
    """
    return Ratio(first, second, average)


class OverLayers(Subscriber):
    """Publishes the mean of another signal over all it was published for in a step, as ``<signal>.over_layers``."""

    def __init__(self, signal: str, unit: str = "1") -> None:
        self.name = f"{signal}.over_layers"
        self.subscriptions = (Subscription(signal),)
        self.signals = (Signal(self.name, "run", unit, KINDS["SIGNAL.over_layers"].formula),)
        self._signal = signal

    def receive(self, bundle: Bundle) -> Published:
        value = bundle[self._signal]
        return None if not isinstance(value, Tensor) and value != value else value


def over_layers(signal: str) -> Subscriber:
    """Mean of a signal that another subscriber publishes, over all layers or parameters of a step; nothing where there are none."""
    return OverLayers(signal)


def unbiased_variance(values: Tensor) -> Tensor:
    """Variance over all elements with n - 1; 0 for a single one.

    >>> float(unbiased_variance(torch.tensor([1.0, 3.0]))), float(unbiased_variance(torch.ones(1)))
    (2.0, 0.0)
    """
    return values.var() if values.numel() > 1 else values.new_zeros(())


def check_topic(topic: str) -> None:
    """Raises ValueError, with those there are, where no statistics can be taken of `topic`."""
    if topic not in TENSORS:
        raise ValueError(f"no topic is called {topic!r}; there are {', '.join(TENSORS)}")
