"""Steps on which nothing is measured: a note of a few fields each, worked up many at a time.

A short step leaves the caches cold, so that each line of Python around it costs five times what it costs in a
loop. The training thread therefore only writes a tuple, and the arithmetic is done for a batch of steps at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter, time
from typing import NamedTuple, TypeAlias

import torch

Losses: TypeAlias = "list[torch.Tensor | float]"


class Note(NamedTuple):
    """What one quiet step leaves behind.

    Args:
        ended: when it ended, of ``perf_counter``.
        rate: the learning rate of the first parameter group, as it stands there.
        losses: of the micro-steps.
        preclip, max_norm: what gradient clipping was told, None where nothing was clipped.
        waited: seconds spent waiting for the loader.
        position: of the loader, passes and batches served.
        own: seconds of the doctor's own work.
    """

    ended: float
    rate: object
    losses: Losses
    preclip: object
    max_norm: object
    waited: float
    position: tuple[int, int]
    own: float


class Notes:
    """The quiet steps since the last batch of them was worked up."""

    def __init__(self) -> None:
        self._notes: list[Note] = []
        self.since = 0.0
        """When the step under way began."""

    def __len__(self) -> int:
        return len(self._notes)

    def begin(self, now: float) -> None:
        """A quiet step begins."""
        self.since = now

    def add(self, note: Note) -> None:
        self._notes.append(note)

    def span(self, now: float) -> float:
        """Seconds since the first note's step ended."""
        return now - self._notes[0].ended if self._notes else 0.0

    def typical_own(self) -> float:
        """Seconds of the doctor's own work in the median step: a step in which another process had the core does not count."""
        own = sorted(note.own for note in self._notes)
        return own[len(own) // 2] if own else 0.0

    def take(self) -> Iterator[tuple[Note, float, float]]:
        """Every note with the seconds its step took and the wall clock at its end; the notes are then gone."""
        notes, self._notes = self._notes, []
        offset = time() - perf_counter()
        for note in notes:
            elapsed, self.since = note.ended - self.since, note.ended
            yield note, elapsed, note.ended + offset
