"""Running experiments seed by seed; what is finished is on disk at once, so that a killed run loses one seed at most."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nndoctor.examinations.untouched import generators_kept
from nndoctor.lab.progress import Progress, silent
from nndoctor.zoo.experiments.experiment import Experiment, Judgement, Measured, Protocol
from nndoctor.zoo.experiments.images import Images, available, images_for


@dataclass(frozen=True)
class Finished:
    """One protocol with one seed.

    Args:
        images: the set that was used.
        seconds: of processor time.
        measured: what it gave.
    """

    seed: int
    images: str
    seconds: float
    measured: Measured

    def to_dict(self) -> dict[str, Any]:
        return {"seed": self.seed, "images": self.images, "seconds": round(self.seconds, 1), **self.measured.to_dict()}

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> Finished:
        return cls(held["seed"], held["images"], held["seconds"], Measured.from_dict(held))


@dataclass
class Bench:
    """Where experiments are run, and where their results are kept.

    Args:
        work: folder of one file for each protocol, seed and set of images; None: nothing is kept.
        data: folder of ``<name>.npz`` files; None: the one named by ``NNDOCTOR_TEST_DATA``, or the images that ship.
    """

    work: Path | None = None
    data: Path | None = None
    _images: dict[str, Images] = field(default_factory=dict, repr=False)

    def run(self, experiment: Experiment, seeds: Sequence[int] | None = None, progress: Progress = silent) -> tuple[Finished, ...]:
        """The results of all seeds; those that are on disk are taken from there."""
        wanted = experiment.seeds if seeds is None else tuple(seeds)
        found = []
        for done, seed in enumerate(wanted, start=1):
            found.append(self.finished(experiment.protocol, seed))
            progress(experiment.protocol.name, done, len(wanted))
        return tuple(found)

    def finished(self, protocol: Protocol, seed: int) -> Finished:
        """The result of one seed, from disk or made now; random generators are left as they were."""
        place = None if self.work is None else self.place(protocol, seed)
        if place is not None and place.exists():
            return Finished.from_dict(json.loads(place.read_text(encoding="utf-8")))
        images = self._images_for(protocol)
        started = time.process_time()
        with generators_kept():
            torch.manual_seed(seed)
            measured = protocol.run(seed, images)
        result = Finished(seed, images.name, time.process_time() - started, measured)
        if place is not None:
            place.parent.mkdir(parents=True, exist_ok=True)
            unfinished = place.with_suffix(".part")
            unfinished.write_text(json.dumps(result.to_dict()), encoding="utf-8")
            os.replace(unfinished, place)
        return Finished.from_dict(result.to_dict())

    def place(self, protocol: Protocol, seed: int) -> Path:
        """The file of one seed; there is never half of it."""
        name = available(protocol.images, self.data)
        return (self.work or Path()) / f"{protocol.name}-{name}-{seed}-{_mark(protocol)}.json"

    def _images_for(self, protocol: Protocol) -> Images:
        if protocol.images not in self._images:
            self._images[protocol.images] = images_for(protocol.images, self.data)
        return self._images[protocol.images]


def judgement(experiment: Experiment, finished: Sequence[Finished]) -> Judgement:
    """What the experiment's rule makes of these results."""
    return experiment.judge([each.measured for each in finished])


def _mark(protocol: Protocol) -> str:
    """Six letters that change with the setup, so that results of another setup are not taken for those of this one."""
    return hashlib.sha256(protocol.setup.encode()).hexdigest()[:6]
