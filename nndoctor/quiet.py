"""Steps on which nothing is measured: a note of a few fields each, worked up many at a time.

A short step leaves the caches cold, so that each line of Python around it costs five times what it costs in a
loop. The training thread therefore only writes a tuple, and the arithmetic is done for a batch of steps at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from time import perf_counter, time
from typing import Any, NamedTuple, TypeAlias

import torch

from nndoctor.tiles import Stamps

ONE_LOSS = ("step.time", "loss", "loss.nonfinite")

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
        loaded: training batches that had arrived by its end.
        own: seconds of the doctor's own work.
        stamps: where its time went, where that is wanted of every step.
    """

    ended: float
    rate: object
    losses: Losses
    preclip: object
    max_norm: object
    waited: float
    position: tuple[int, int]
    loaded: int
    own: float
    stamps: Stamps | None = None


OWN = Note._fields.index("own")


class Notes:
    """The quiet steps since the last batch of them was worked up.

    Args:
        most: notes that make a batch.
        seconds: after which fewer make one, too.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._notes: list[tuple[Any, ...]] = []
        self.since = 0.0
        """When the step under way began."""

    def __len__(self) -> int:
        return len(self._notes)

    def begin(self, now: float) -> None:
        """A quiet step begins."""
        self.since = now

    def add(self, note: tuple[Any, ...]) -> None:
        """Keep the fields of a `Note`; a plain tuple costs a fifth of a named one."""
        self._notes.append(note)

    def full(self, now: float) -> bool:
        """Whether the batch is to be worked up."""
        notes = self._notes
        return len(notes) >= self._most or now - notes[0][0] > self._seconds

    def typical_own(self) -> float:
        """Seconds of the doctor's own work in the median step: a step in which another process had the core does not count."""
        own = sorted(note[OWN] for note in self._notes)
        return own[len(own) // 2] if own else 0.0

    def take(self) -> Iterator[tuple[Note, float, float]]:
        """Every note with the seconds its step took and the wall clock at its end; the notes are then gone."""
        notes, self._notes = self._notes, []
        offset = time() - perf_counter()
        for note in map(Note._make, notes):
            elapsed, self.since = note.ended - self.since, note.ended
            yield note, elapsed, note.ended + offset


def plain_row(note: Note, elapsed: float, waited: float | None) -> tuple[tuple[str, ...], tuple[float, ...]] | None:
    """Names and numbers of a step with one finite loss and nothing that is still on a device; None for any other.

    Args:
        elapsed: seconds that the step took.
        waited: share of them spent waiting for the loader, None where there is none.
    """
    if len(note.losses) != 1:
        return None
    loss = note.losses[0]
    if not isinstance(loss, float) or not isfinite(loss):
        return None
    names: tuple[str, ...] = ONE_LOSS
    numbers: tuple[float, ...] = (elapsed, loss, 0.0)
    if waited is not None:
        names, numbers = (*names, "step.data_wait_fraction"), (*numbers, waited)
    if note.preclip is not None:
        if not isinstance(note.preclip, float) or not isinstance(note.max_norm, (int, float)):
            return None
        names, numbers = (*names, "grad.total_norm_preclip", "clip.max_norm"), (*numbers, note.preclip, float(note.max_norm))
    return names, numbers
