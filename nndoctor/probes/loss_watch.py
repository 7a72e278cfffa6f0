"""A loss against its own recent history: how far it leaps, in deviations, in earlier leaps, and back towards the start."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

import torch

WINDOW = 128
FEWEST = 32
REFRESH = 8

DEVIATIONS = 6.0
"""Over the last 128 losses, as OLMo's trainer uses it to leave a step out
(https://github.com/allenai/OLMo-core/blob/main/src/olmo_core/optim/skip_step_optimizer.py)."""

EXCURSION = 2.0
"""Times the largest excursion of those losses: tails as heavy as 1/x^2 get there once in 500 losses, log-normal
ones once in a thousand, exponential ones never."""

SETBACK = 0.5
"""Share of all progress so far that the leap takes back. A net that has nearly converged leaps by many deviations
on one hard sample, and loses nothing by it."""

LOUD = 0.5
"""Share by which a loss must exceed the largest of the last 128 to be looked at before its turn: seldom the case."""

PROGRESS = 0.2
"""Share of the first losses that must have been gained before: without it there is nothing to be thrown back from,
as in games, whose losses hover."""

NEWEST = 16
"""Losses whose median is the level that a falling loss has come to: that of all 128 lags behind by half of them."""


@dataclass(frozen=True, slots=True)
class Leap:
    """A loss far outside of its own history.

    Args:
        loss, usual: the loss, and the median of those before it.
        deviations: robust standard deviations between the two.
        excursion: the leap over the largest one before it.
        setback: share of the progress so far that it takes back.
    """

    loss: float
    usual: float
    deviations: float
    excursion: float
    setback: float


class LossWatch:
    """Sees every loss, at the cost of a comparison; every eighth time it looks at median and spread anew."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._first: list[float] = []
        self._seen = 0
        self._usual = self._deviation = self._largest = self._progress = float("nan")
        self.limit = float("inf")
        """A loss above it is a leap."""

    def loud(self) -> float:
        """What a loss has to exceed to be worth a look by `see` at once; infinite before the first losses.

        Lower than the limit, which moves with each loss that is seen: what is seen late must not have been missed.
        """
        if not self._recent:
            return float("inf")
        largest = max(self._recent)
        return min(self.limit, largest + LOUD * abs(largest))

    def see(self, loss: float) -> Leap | None:
        """The leap that `loss` is, None where it stays within its history."""
        self._seen += 1
        if len(self._first) < 5:
            self._first.append(loss)
        if self._seen % REFRESH == 0:
            self._refresh()
        if loss <= self.limit:
            self._recent.append(loss)
            return None
        above = loss - self._usual
        leap = Leap(loss, self._usual, above / self._deviation, above / self._largest, above / self._progress)
        self._recent.append(self.limit)  # what lasts becomes the new history, a single leap hardly moves it
        return leap

    def _refresh(self) -> None:
        count = len(self._recent)
        if count < FEWEST:
            return
        ordered = sorted(self._recent)
        self._usual = ordered[count // 2]
        spread = sorted(abs(value - self._usual) for value in ordered)[count // 2]
        self._deviation = max(1.4826 * spread, 1e-3 * abs(self._usual), 1e-12)
        self._largest = max(ordered[-1] - self._usual, self._deviation)
        start = sorted(self._first)[len(self._first) // 2]
        # Of a net that has only just begun to learn most of these losses are from before; the newest show what it has gained.
        newest = sorted(islice(self._recent, count - NEWEST, None))
        self._progress = start - min(self._usual, newest[NEWEST // 2])
        if self._progress > PROGRESS * abs(start):
            least = max(DEVIATIONS * self._deviation, EXCURSION * self._largest, SETBACK * self._progress)
            self.limit = self._usual + least
        else:
            self.limit = float("inf")


TOGETHER = 16
"""Losses on a device that travel to the host in one copy."""

Origin = TypeVar("Origin")


class LateLosses(Generic[Origin]):
    """Losses that are on a device: copied to the host in groups, read when they have arrived, never waited for."""

    def __init__(self) -> None:
        self._waiting: list[tuple[torch.Tensor, Origin]] = []
        self._travelling: tuple[torch.Tensor, torch.cuda.Event | None, list[Origin]] | None = None

    def add(self, loss: torch.Tensor, origin: Origin) -> None:
        self._waiting.append((loss.reshape(1), origin))

    def arrived(self) -> Iterator[tuple[float, Origin]]:
        """The losses that have reached the host, in order; sends the next group on its way."""
        if self._travelling is not None:
            host, event, origins = self._travelling
            if event is not None and not event.query():  # type: ignore[no-untyped-call]
                return
            self._travelling = None
            yield from zip(host.tolist(), origins, strict=True)
        if len(self._waiting) < TOGETHER:
            return
        group, self._waiting = self._waiting, []
        stacked = torch.cat([loss.float() for loss, _ in group])
        event = None
        if stacked.is_cuda:
            host = torch.empty(stacked.shape, pin_memory=True)
            host.copy_(stacked, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(stacked.device))
        else:
            host = stacked.cpu()
        self._travelling = (host, event, [origin for _, origin in group])
