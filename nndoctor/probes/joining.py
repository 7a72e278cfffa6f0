"""Waits until all topics of a subscription are there: every message has a place, and those whose places agree belong together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from nndoctor.interpose import version_of


class Where(NamedTuple):
    """The place of a message; None is everywhere.

    Args:
        layer: its name.
        batch: micro-batch of the step.
        turn: pass of a whole model in the step.
        call: of the layer in the step.
        weight, bias: name of the parameter.
    """

    layer: str | None = None
    batch: int | None = None
    turn: int | None = None
    call: int | None = None
    weight: str | None = None
    bias: str | None = None


FIELDS: Mapping[str, frozenset[str]] = {
    "inputs": frozenset({"batch", "turn"}),
    "outputs": frozenset({"batch", "turn"}),
    "labels": frozenset({"batch"}),
    "loss": frozenset({"batch"}),
    "activations": frozenset({"layer", "batch", "turn", "call"}),
    "layer_gradients": frozenset({"layer", "batch", "turn", "call"}),
    **dict.fromkeys(("weights", "weight_gradients", "weight_updates"), frozenset({"layer", "weight"})),
    **dict.fromkeys(("biases", "bias_gradients", "bias_updates"), frozenset({"layer", "bias"})),
}
"""What the place of each topic says."""


class Held:
    """A value that waits for others of its bundle.

    A tensor of the training is not copied unless something writes into it before the step is over: whether that happens
    is found out with a copy the first time, remembered in `known` under `kind`, and looked at every time.

    Args:
        kind: what is remembered together, such as the topic and the layer; None: nothing ever writes into this value.
    """

    __slots__ = ("_kind", "_known", "_original", "_version", "value")

    def __init__(self, value: Any, kind: object, known: dict[object, bool]) -> None:
        self._kind, self._known = kind, known
        self._original: Tensor | None = None
        self._version = 0
        self.value = value
        if kind is None or not isinstance(value, Tensor) or value.is_inference():
            return
        if known.get(kind) is not False:
            self._original, self._version = value, version_of(value)
        if known.get(kind) is not True:
            self.value = value.clone()

    @property
    def intact(self) -> bool:
        """Whether the value is still what it was when it came."""
        if self._original is None:
            return True
        same = version_of(self._original) == self._version
        self._known[self._kind] = same
        return same or self.value is not self._original


class Join:
    """Takes messages in any order and gives every complete combination of one of each topic whose places agree.

    Args:
        topics: what the place of each topic says.
    """

    def __init__(self, topics: Mapping[str, frozenset[str]]) -> None:
        self._fields = dict(topics)
        self._waiting: dict[str, dict[str | None, dict[Where, Held]]] = {topic: {} for topic in topics}

    def clear(self) -> None:
        """Forget what is incomplete: the step is over."""
        for waiting in self._waiting.values():
            waiting.clear()

    def add(self, topic: str, where: Where, held: Held) -> list[tuple[Where, dict[str, Held]]]:
        """Take one message; the combinations that it completes.

        Raises:
            ValueError: there is a message of this topic and place already.
        """
        same = self._waiting[topic].setdefault(where.layer, {})
        if where in same:
            raise ValueError(f"{topic} came twice for {where}")
        same[where] = held
        found = [(where, {topic: held})]
        known = self._fields[topic]
        for other, fields in self._fields.items():
            if other == topic:
                continue
            found = [
                (_merged(place, there), {**values, other: more})
                for place, values in found
                for there, more in self._matching(other, place, known)
            ]
            known = known | fields
        return found

    def _matching(self, topic: str, where: Where, known: frozenset[str]) -> Iterator[tuple[Where, Held]]:
        """Messages of `topic` that agree with `where`, which says what is in `known`."""
        waiting, fields = self._waiting[topic], self._fields[topic]
        if fields <= known:  # there is one at most
            there = Where(**{name: getattr(where, name) for name in fields})
            held = waiting.get(there.layer, {}).get(there)
            if held is not None:
                yield there, held
            return
        shared = fields & known
        layers = [where.layer] if "layer" in shared else list(waiting)
        for layer in layers:
            for there, held in waiting.get(layer, {}).items():
                if all(getattr(there, name) == getattr(where, name) for name in shared):
                    yield there, held


def _merged(one: Where, other: Where) -> Where:
    return Where._make(a if a is not None else b for a, b in zip(one, other, strict=True))
