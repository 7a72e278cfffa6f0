"""Histograms of tensors, kept beside the record of a run: they are no single number, so they are no signal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from nndoctor.metrics.statistics import check_topic
from nndoctor.subscribers import Bundle, Published, Run, Subscriber, Subscription

BINS = 50
FILE = "histograms.jsonl"

Keep: TypeAlias = Callable[[str, Tensor, int], Any]
"""Takes ``topic/layer or parameter``, a tensor and the step."""


class Counted(NamedTuple):
    """One histogram: what it is of, when, counts (bins,) and the edges between them (bins + 1,)."""

    name: str
    step: int
    counts: tuple[int, ...]
    edges: tuple[float, ...]


class Histogram(Subscriber):
    """Keeps counts of every tensor of a topic; publishes nothing."""

    def __init__(self, topic: str, keep: Keep | None = None) -> None:
        check_topic(topic)
        self.name = f"{topic}.histogram"
        self.subscriptions = (Subscription(topic),)
        self._topic, self._keep = topic, keep

    def attach(self, run: Run) -> None:
        self._file = None if self._keep is not None else open(run.folder / FILE, "a", encoding="utf-8")  # noqa: SIM115  # see detach

    def receive(self, bundle: Bundle) -> Published:
        name = "/".join(part for part in (self._topic, bundle.parameter or bundle.layer) if part)
        if self._keep is not None:
            self._keep(name, bundle[self._topic], bundle.step)
        elif self._file is not None:
            counts, edges = counted(bundle[self._topic])
            self._file.write(json.dumps([name, bundle.step, counts, edges]) + "\n")
        return None

    def detach(self) -> None:
        if self._file is not None:
            self._file.close()


def histogram(topic: str, keep: Keep | None = None) -> Subscriber:
    """Counts in 50 bins of every tensor of a topic; they wait for the device.

    Args:
        keep: called with the name, the tensor and the step, as ``SummaryWriter.add_histogram``; by default counts go to
            ``histograms.jsonl`` in the run's folder, from where :func:`read_histograms` reads them.
    """
    return Histogram(topic, keep)


def counted(values: Tensor, bins: int = BINS) -> tuple[list[int], list[float]]:
    """Counts (they add up to the finite elements) and edges.

    >>> sum(counted(torch.ones(7))[0])
    7
    """
    finite = values.detach().flatten().float().cpu()
    finite = finite[torch.isfinite(finite)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts, edges = torch.histogram(finite, bins=bins, range=(low, high))
    return [int(count) for count in counts], edges.tolist()


def read_histograms(folder: Path) -> Iterator[Counted]:
    """The histograms of the run in `folder`, in the order of their steps; none where none were kept."""
    path = folder / FILE
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            name, step, counts, edges = json.loads(line)
            yield Counted(name, step, tuple(counts), tuple(edges))
