"""Which frames the record of a long run lets go of, so that it stays within a size whatever the number of steps.

Frames come in two weights: those of quiet steps, a few numbers each, and those of measured steps, which hold values of
every layer and parameter. Each weight has its share of the size. When it is used up, the first steps and the newest
frames stay as they are, and what lies between is thinned to evenly spaced steps: as a run grows, its past is kept ever
more coarsely, and never its present.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

LARGEST = 90 << 20
"""Bytes of frames that a record keeps. The file and its log around them take up to twice that: pages that thinning left half full."""

PLAIN = 512
"""Bytes up to which a frame counts as one of a quiet step."""

FIRST_STEPS = 1000
"""Steps at the start that are kept whole: what goes wrong there is why most runs are looked at again."""

PLAIN_SHARE = 0.25
FIRST = 0.25  # of a weight's share: most that the first steps may take
NEWEST = 0.25  # of a weight's share: newest frames that are kept whole
MIDDLE = 0.25  # likewise what is left of the middle when it is thinned, so that half of the share is free then
MARKS = 64  # how finely the newest frames are told from the middle, in parts of that quarter

ROWS = 4000
"""Frames looked at between two transactions: the writer is never long away from its queue."""

FACT = "record_thinned"
"""Key under which a record says how it was thinned."""


class Stored(NamedTuple):
    """One frame in a record: its number, its step, the bytes it takes."""

    number: int
    step: int
    size: int


@dataclass(eq=False)
class _Weight:
    """The frames of one weight that the record has."""

    allowed: int
    size: int = 0
    frames: int = 0
    first_number: int = 0
    first_step: int = 0
    """Number and step of the last frame at the start that is kept whole."""
    first_size: int = 0
    spacing: float = 0.0
    """Steps between two frames of the middle that stay."""
    newest: deque[Stored] = field(default_factory=deque)
    """Every so many bytes one mark: the oldest tells where the newest frames begin."""
    newest_size: int = 0
    next_kept: float = 0.0
    until: int = 0
    """The number of the first frame that the round under way leaves alone."""
    halves: int = 0
    enough: int = 0

    def add(self, frame: Stored) -> None:
        self.size += frame.size
        self.frames += 1
        if frame.step <= FIRST_STEPS and self.size == self.first_size + frame.size <= FIRST * self.allowed:
            self.first_number, self.first_step, self.first_size = frame.number, frame.step, self.size
        part = NEWEST * self.allowed / MARKS
        if not self.newest or self.newest[-1].size + frame.size > part:
            self.newest.append(frame)
        else:
            mark = self.newest[-1]
            self.newest[-1] = mark._replace(size=mark.size + frame.size)
        self.newest_size += frame.size
        while len(self.newest) > 1 and self.newest_size - self.newest[0].size >= NEWEST * self.allowed:
            self.newest_size -= self.newest.popleft().size

    @property
    def full(self) -> bool:
        return self.size > max(self.allowed, self.enough)

    def thinned(self) -> None:
        """A round is over. Where it could not free anything, the next one waits until there is more to choose from."""
        self.enough = int(1.1 * self.size)

    def plan(self) -> None:
        """Set the spacing at which the middle shrinks to its part of the share."""
        middle = self.newest[0].step - self.first_step
        frames = MIDDLE * self.allowed / (self.size / self.frames)
        self.spacing = max(self.spacing, middle / max(frames, 1.0))
        self.next_kept, self.until = 0.0, self.newest[0].number

    def stays(self, frame: Stored) -> bool:
        """Whether a frame of the middle stays; frames come in order."""
        if self.spacing and frame.step < self.next_kept:
            return False
        self.next_kept = frame.step + self.spacing
        return True


class Thinning:
    """Follows what a record holds and chooses what it lets go of.

    Args:
        limit: bytes of frames that may be kept.
    """

    def __init__(self, limit: int = LARGEST) -> None:
        self.forgotten = 0
        """Frames that were let go of, or not taken."""
        self._plain, self._full = _Weight(int(limit * PLAIN_SHARE)), _Weight(int(limit * (1 - PLAIN_SHARE)))
        self._thinned: tuple[_Weight, ...] = ()
        self._number = 0
        self.position = 0
        """The number of the frame up to which the round under way has looked; 0 between two rounds."""

    def _weight(self, size: int) -> _Weight:
        return self._plain if size <= PLAIN else self._full

    def wrote(self, step: int, size: int) -> None:
        """One more frame is in the record."""
        self._number += 1
        self._weight(size).add(Stored(self._number, step, size))

    @property
    def due(self) -> bool:
        """Whether frames are to be let go of now."""
        if not self._thinned:
            self._thinned = tuple(weight for weight in (self._plain, self._full) if weight.full)
            for weight in self._thinned:
                weight.plan()
        return bool(self._thinned)

    def choose(self, frames: Iterable[Stored]) -> list[int]:
        """Of the next frames after `position`, the numbers of those to be let go of; ends the round where it is over."""
        until = max(weight.until for weight in self._thinned)
        chosen: list[int] = []
        over = True
        for frame in frames:
            if frame.number >= until:
                over = True
                break
            over = False
            self.position = frame.number
            weight = self._weight(frame.size)
            if weight not in self._thinned or not weight.first_number < frame.number < weight.until:
                continue
            if not weight.stays(frame):
                weight.size -= frame.size
                weight.frames -= 1
                chosen.append(frame.number)
        if over:
            for weight in self._thinned:
                weight.thinned()
            self._thinned, self.position = (), 0
        self.forgotten += len(chosen)
        return chosen

    def takes(self, step: int, size: int) -> bool:
        """Whether a record that cannot let go of anything takes a new frame.

        It takes ever fewer: each time that another half of the share is used up, at half the pace.
        """
        weight = self._weight(size)
        if weight.size > weight.allowed * (1 + weight.halves / 2):
            weight.spacing = max(2 * weight.spacing, 2 * (step - weight.first_step) / weight.frames)
            weight.halves += 1
        if weight.stays(Stored(0, step, size)):
            return True
        self.forgotten += 1
        return False

    def told(self) -> Mapping[str, Any]:
        """For the facts of the run: how the past of the record was thinned."""
        return {
            "first_steps": FIRST_STEPS,
            "every": round(self._full.spacing),
            "quiet_every": round(self._plain.spacing),
        }


def sentence(told: Mapping[str, Any]) -> str:
    """What a record says of its thinning, for people."""
    parts = [f"one measured step in {told['every']} steps" if told.get("every") else "", f"one quiet step in {told['quiet_every']}" if told.get("quiet_every") else ""]
    kept = " and ".join(part for part in parts if part)
    return (
        f"the record of this long run was thinned: between its first {told['first_steps']} steps and its newest part it "
        f"keeps about {kept}; charts and judgements of that stretch rest on these"
    )
