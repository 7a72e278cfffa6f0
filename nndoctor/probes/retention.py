"""Whether the graphs of past steps are still alive: losses or outputs that somebody keeps with their history.

Each loss and each output gets a note in the public ``metadata`` of its autograd node, which dies with the node.
Notes that outlive two optimizer steps are kept by somebody: in an ordinary loop there is none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any
from weakref import ref

import torch

from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import CONTRACT, Measured

KEY = "nndoctor.alive"

OLD = 2
"""Steps after which the graph of a loss has no business any more: variables of the loop hold the last one, or two."""

MOST = 64
"""Notes of each kind that are followed; the count stops there, the fault is long clear."""

ENOUGH = 4
"""From this many on the finding is news."""

SCALINGS = frozenset({"MulBackward0", "DivBackward0"})


class _Note:
    """Lives as long as the autograd node that holds it."""

    __slots__ = ("__weakref__",)


class _Kept:
    """The notes of one kind: those of the last steps, and those that have grown old."""

    def __init__(self) -> None:
        self._young: deque[tuple[int, ref[_Note]]] = deque(maxlen=MOST)
        self._old: deque[tuple[int, ref[_Note]]] = deque(maxlen=MOST)

    def mark(self, node: Any, step: int) -> None:
        note = _Note()
        node.metadata[KEY] = note
        self._young.append((step, ref(note)))

    def age(self, step: int) -> None:
        while self._young and self._young[0][0] <= step - OLD:
            young = self._young.popleft()
            if young[1]() is not None:
                self._old.append(young)

    @property
    def count(self) -> int:
        """Steps long past of which a note is alive; the several losses or outputs of one step count once."""
        if self._old:
            self._old = deque((old for old in self._old if old[1]() is not None), maxlen=MOST)
        return len({step for step, _ in self._old})

    def __bool__(self) -> bool:
        return bool(self._old)

    def clear(self) -> None:
        self._young.clear()
        self._old.clear()


def _unscaled(node: Any) -> Any:
    """The node below multiplications and divisions by constants: ``loss`` of ``(loss / 4).backward()``."""
    for _ in range(4):
        following = [child for child, _ in node.next_functions if child is not None]
        if type(node).__name__ not in SCALINGS or len(following) != 1:
            break
        node = following[0]
    return node


def _outputs(value: object, depth: int = 0) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        if value.grad_fn is not None:
            yield value
    elif depth < 3 and isinstance(value, (tuple, list)):
        for item in value[:4]:
            yield from _outputs(item, depth + 1)
    elif depth < 3 and isinstance(value, Mapping):
        for item in list(value.values())[:4]:
            yield from _outputs(item, depth + 1)


class RetentionProbe:
    """Counts the losses and outputs of past steps whose graphs are still held."""

    name = "retention"
    tier = CONTRACT
    sleeps = True
    signals = ("graph.retained_losses", "graph.retained_outputs")

    def __init__(self) -> None:
        self.news = False
        self._step = 0
        self._leader: int | None = None
        self._losses = _Kept()
        self._outputs = _Kept()
        self._told = 0

    def attach(self, index: ModelIndex) -> None:
        """Nothing of the model is needed."""

    def detach(self) -> None:
        self._losses.clear()
        self._outputs.clear()

    def begin_step(self, step: int, sampled: bool) -> None:
        """Steps are counted by ``stepped``; of those in between that are not sampled nothing is marked."""

    def forward_ended(self, root: object, output: object) -> None:
        """Note the outputs of a pass of the model."""
        for tensor in _outputs(output):
            self._outputs.mark(tensor.grad_fn, self._step)

    def backward_begins(self, loss: object) -> None:
        """Note the loss."""
        if isinstance(loss, torch.Tensor) and loss.grad_fn is not None:
            self._losses.mark(_unscaled(loss.grad_fn), self._step)

    def stepped(self, optimizer: object) -> None:
        """A step of the first optimizer: where several take turns, the variables of the loop live for a whole round."""
        self._leader = id(optimizer) if self._leader is None else self._leader
        if id(optimizer) != self._leader:
            return
        self._step += 1
        self._losses.age(self._step)
        self._outputs.age(self._step)
        if self._told < ENOUGH and (self._losses or self._outputs):
            count = max(self._losses.count, self._outputs.count)
            self.news = self.news or count >= ENOUGH

    def collect(self) -> Mapping[str, Measured]:
        self.news = False
        if self._step <= OLD:
            return {}
        losses, outputs = self._losses.count, self._outputs.count
        self._told = max(self._told, losses, outputs)
        return {"graph.retained_losses": float(losses), "graph.retained_outputs": float(outputs)}
