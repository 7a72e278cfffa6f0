"""The loss as a function, learnt from watching it once: operations between the model's output and backward().

A training script computes its loss in its own lines. Those lines cannot be called, but what they do to tensors can be noted
once and done again with other outputs and targets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nndoctor.examinations.trees import mapped, tensors
from nndoctor.probes.functional import FunctionMode

LONGEST = 10_000
"""Operations after which a tape gives up: that is no loss any more."""
WRITERS = frozenset({"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__set__"})


@dataclass(frozen=True)
class Operation:
    """One call of a torch function with tensors."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: Any

    @property
    def reads(self) -> list[Tensor]:
        return tensors((self.args, dict(self.kwargs)))

    @property
    def written(self) -> list[Tensor]:
        """The tensors that it changes in place: its first argument, or none."""
        name = getattr(self.function, "__name__", "")
        in_place = name in WRITERS or (name.endswith("_") and not name.endswith("__"))
        return tensors(self.args[:1]) if in_place else []


class Tape(FunctionMode):
    """While entered, notes every operation on tensors; each is passed on as it is.

    Args:
        outputs: what the model has just returned.
    """

    def __init__(self, outputs: Any) -> None:
        super().__init__({}, lambda *told: None)  # it looks at every function, not at a few
        self.outputs = outputs
        self.operations: list[Operation] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if len(self.operations) < LONGEST:
            with torch._C.DisableTorchFunction():
                operation = Operation(func, tuple(args), dict(kwargs or {}), result)
                if operation.reads and (tensors(result) or operation.written):
                    self.operations.append(operation)
        return result


@dataclass(frozen=True)
class Replay:
    """A loss function made from a tape: ``replay(outputs, targets)`` does with them what the script did with its own.

    A copy that is made together with a copy of the model uses the parameters of that copy.

    Args:
        outputs: of the tape.
        operations: those on the way to the loss, in order.
        targets: tensors of the script's that take part and have one entry per sample; these can be replaced.
        loss: the tensor that ``backward()`` was called on.
        substitutes: what takes the place of a tensor, by its id.
    """

    outputs: Any
    operations: tuple[Operation, ...]
    targets: tuple[Tensor, ...]
    loss: Tensor
    substitutes: Mapping[int, Tensor] = field(default_factory=dict)

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        now: dict[int, Any] = dict(self.substitutes)
        now |= {id(old): new for old, new in zip(tensors(self.outputs), tensors(outputs), strict=True)}
        now |= {id(old): new for old, new in zip(self.targets, tensors(targets), strict=True)}
        made: set[int] = set()

        def present(tensor: Tensor) -> Tensor:
            found: Tensor = now.get(id(tensor), tensor)
            return found

        for operation in self.operations:
            for written in operation.written:
                if id(written) not in made:
                    now[id(written)] = present(written).clone()  # the script's own, or an input of ours: not to be written
            result = operation.function(*mapped(present, operation.args), **mapped(present, dict(operation.kwargs)))
            now |= {id(old): new for old, new in zip(tensors(operation.result), tensors(result), strict=True)}
            made |= {id(t) for t in (*tensors(operation.result), *operation.written)}
        return present(self.loss)

    def __deepcopy__(self, memo: dict[int, Any]) -> Replay:
        taking_part = (t for operation in self.operations for t in operation.reads)
        copies = {id(t): memo[id(t)] for t in taking_part if isinstance(memo.get(id(t)), Tensor)}
        return Replay(self.outputs, self.operations, self.targets, self.loss, {**self.substitutes, **copies})


def replay_of(tape: Tape, loss: Tensor, samples: int | None) -> Replay | None:
    """The loss function that `tape` shows to lead from its outputs to `loss`; None where doing it again gives another loss.

    Args:
        samples: entries that a tensor has to have to count as targets.
    """
    operations, needed = on_the_way(tape.operations, loss)
    outputs = {id(t) for t in tensors(tape.outputs)}
    made = {id(t) for operation in operations for t in tensors(operation.result)}
    if not outputs & set(needed):
        return None
    targets = tuple(
        t
        for key, t in needed.items()
        if key not in outputs | made and not t.requires_grad and t.dim() > 0 and t.shape[0] == samples
    )
    replay = Replay(tape.outputs, tuple(operations), targets, loss)
    try:
        with torch.no_grad():
            again = replay(mapped(lambda t: t.detach(), tape.outputs), targets)
    except Exception:
        return None  # such as a step in place whose first value is gone
    return replay if torch.equal(again, loss.detach()) else None


def on_the_way(operations: Iterable[Operation], loss: Tensor) -> tuple[list[Operation], dict[int, Tensor]]:
    """The operations that `loss` depends on, in order, and every tensor they read, by its id and in the order of reading."""
    wanted = {id(loss)}
    kept: list[Operation] = []
    for operation in reversed(list(operations)):
        if wanted & {id(t) for t in (*tensors(operation.result), *operation.written)}:
            kept.append(operation)
            wanted |= {id(t) for t in operation.reads}
    kept.reverse()
    read = {id(loss): loss, **{id(t): t for operation in kept for t in operation.reads}}
    return kept, read
