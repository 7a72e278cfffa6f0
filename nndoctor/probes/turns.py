"""What a loop does between two optimizer steps, and what a few such turns say about it: accumulation, a GAN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MOST_MICRO_BATCHES = 4096


@dataclass(slots=True)
class Turn:
    """What happened between two optimizer steps.

    Args:
        optimizer: ``id`` of the optimizer whose step ended it.
        backwards: backward calls.
        leaves: ``id`` of the tensors that got gradients from them; None where a graph was not walked to its end.
        cleared: gradients were cleared between two of them.
        still: optimizers whose parameters were switched off during the last of them.
        gradients: how often the optimizer found gradients ready, several times in a closure.
        forwards, evaluations: calls of each model with and without gradients.
        batches: batches that a loader gave.
        given: shape of the first input of the turn.
    """

    optimizer: int = 0
    backwards: int = 0
    leaves: frozenset[int] | None = frozenset()
    cleared: bool = False
    zeroed: bool = False
    still: frozenset[int] = frozenset()
    gradients: int = 0
    forwards: dict[int, int] = field(default_factory=dict)
    evaluations: dict[int, int] = field(default_factory=dict)
    batches: int = 0
    given: tuple[int, ...] | None = None

    @property
    def calls(self) -> int:
        """Calls with gradients of the model that was called most."""
        return max(self.forwards.values(), default=0)


def take_turns(turns: Sequence[Turn], held: Mapping[int, frozenset[int]]) -> bool:
    """Whether two optimizers of disjoint tensors play against each other.

    Each steps after a backward of its own. The loss of one passes through what the other holds, or that was switched
    off for it, and the other's loss does not do the same in return, or calls a network more often.

    Args:
        held: the tensors of each optimizer.
    """
    own = [turn for turn in turns if turn.backwards and turn.leaves is not None]
    for turn in own:
        mine = held.get(turn.optimizer, frozenset())
        for other, theirs in held.items():
            if other == turn.optimizer or mine & theirs or not mine & turn.leaves:  # type: ignore[operator]
                continue
            if not (theirs & turn.leaves or other in turn.still):  # type: ignore[operator]
                continue
            answers = [t for t in own if t.optimizer == other]
            if any(_differs(turn, answer, mine) for answer in answers):
                return True
    return False


def _differs(turn: Turn, answer: Turn, mine: frozenset[int]) -> bool:
    detached = not mine & (answer.leaves or frozenset())
    return detached or dict(turn.forwards) != dict(answer.forwards)


def micro_batches(turns: Sequence[Turn]) -> int | None:
    """Backward calls per step where gradients are accumulated, 1 where they are not; None before two turns tell."""
    whole = [turn for turn in turns if turn.gradients <= 1 and turn.backwards]
    if len(whole) < 2:
        return None
    most = max(turn.backwards for turn in whole)
    full = [turn for turn in whole if turn.backwards == most]
    fed = all(turn.calls >= most or not turn.forwards for turn in full) and not any(turn.cleared for turn in whole)
    return most if 1 < most <= MOST_MICRO_BATCHES and len(full) >= 2 and fed else 1


def several_forwards(turns: Sequence[Turn]) -> int:
    """Calls of the same model per backward, where it is several in most turns; 1 otherwise."""
    ratios = sorted(turn.calls // turn.backwards for turn in turns if turn.backwards and turn.forwards)
    return max(1, ratios[len(ratios) // 2]) if ratios else 1


def is_called_back(turns: Sequence[Turn]) -> bool:
    """Whether optimizers ask for gradients several times in a step."""
    return sum(turn.gradients > 1 for turn in turns) >= 2

