"""How many epochs, how many training samples and how large a test set a study needs, before it is made.

After the preliminary experiments of Nemcova, *Neural network training progress visualization*.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nndoctor.examinations.untouched import generators_kept, seed_generators
from nndoctor.lab.patient import Evaluation, Patient
from nndoctor.lab.progress import Progress, silent
from nndoctor.lab.results import Result
from nndoctor.lab.sources import load_weights

Training = Callable[[nn.Module, Tensor, Tensor, int], None]
"""Trains a model in place on inputs and targets for a number of epochs."""

GAIN = 0.002
"""Accuracy that a further epoch has to bring for it to be worth while, as in that work."""

SHARES = (0.1, 0.2, 0.4, 0.6, 0.8)
"""Sizes of random subsets, as shares of the test set."""


@dataclass(frozen=True)
class StudyPoint(Result):
    """One training: its epochs and samples, and what it reached on the test batches."""

    epochs: int
    samples: int
    loss: float
    accuracy: float | None


@dataclass(frozen=True)
class Study(Result):
    """Trainings from the same initial weights that differ in one number.

    Args:
        points: in ascending order of that number.
        enough: the first one after which nothing brings more than `gain` of accuracy (of the first loss, without labels).
    """

    points: tuple[StudyPoint, ...]
    enough: StudyPoint
    gain: float


def epoch_study(
    make_model: Callable[[], nn.Module],
    train: Training,
    data: tuple[Tensor, Tensor],
    test: Patient,
    epochs: int = 15,
    *,
    gain: float = GAIN,
    seed: int = 0,
    progress: Progress = silent,
) -> Study:
    """Loss and accuracy after each of `epochs` epochs.

    Args:
        make_model: called with the generators at `seed`.
        train: called for one epoch at a time; keep an optimizer with a state in it (see :func:`sgd_training`).
        data: inputs and targets.
        test: whose loss function and batches the model is judged by.
    """
    points = []
    with generators_kept():
        seed_generators(seed)
        model = make_model()
        for epoch in range(1, epochs + 1):
            train(model, *data, 1)
            points.append(_point(epoch, len(data[0]), _judged(test, model)))
            progress("epochs", epoch, epochs)
    return Study(tuple(points), _enough(points, gain), gain)


def training_size_study(
    make_model: Callable[[], nn.Module],
    make_training: Callable[[], Training],
    data: tuple[Tensor, Tensor],
    test: Patient,
    sizes: Sequence[int],
    *,
    epochs: int = 15,
    gain: float = GAIN,
    seed: int = 0,
    progress: Progress = silent,
) -> Study:
    """Loss and accuracy after training on random subsets, each from the same initial weights; smaller ones are parts of larger ones."""
    points = []
    order = torch.randperm(len(data[0]), generator=torch.Generator().manual_seed(seed))
    for done, size in enumerate(sorted(sizes), start=1):
        with generators_kept():
            seed_generators(seed)
            model = make_model()
            chosen = order[:size]
            make_training()(model, data[0][chosen], data[1][chosen], epochs)
            points.append(_point(epochs, len(chosen), _judged(test, model)))
        progress("training sizes", done, len(sizes))
    return Study(tuple(points), _enough(points, gain), gain)


@dataclass(frozen=True)
class CheckpointPoint(Result):
    """What one checkpoint of a training reaches on the test batches."""

    name: str
    loss: float
    accuracy: float | None


@dataclass(frozen=True)
class CheckpointStudy(Result):
    """A training by its checkpoints.

    Args:
        points: in their order.
        enough: the first one after which nothing brings more than `gain` of accuracy (of the first loss, without labels).
    """

    points: tuple[CheckpointPoint, ...]
    enough: CheckpointPoint
    gain: float


def checkpoint_study(
    test: Patient, places: Sequence[Path], *, gain: float = GAIN, progress: Progress = silent
) -> CheckpointStudy:
    """Loss and accuracy at each checkpoint of a training that was made already: how many of its epochs were worth while.

    Raises:
        ValueError: there is none.
        SourceError: one of them cannot be read, or does not fit the model.
    """
    if not places:
        raise ValueError("expected at least one checkpoint")
    points = []
    for done, place in enumerate(places, start=1):
        with test.examined() as subject:
            load_weights(subject.model, place)
            found = subject.evaluate()
        points.append(CheckpointPoint(place.stem, found.loss, found.accuracy))
        progress("checkpoints", done, len(places))
    return CheckpointStudy(tuple(points), _enough(points, gain), gain)


def sgd_training(
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    make_optimizer: Callable[[nn.Module], Optimizer],
    *,
    batch_size: int = 64,
    seed: int = 0,
) -> Training:
    """A plain training loop over shuffled batches that keeps its optimizer from call to call."""
    optimizers: WeakKeyDictionary[nn.Module, Optimizer] = WeakKeyDictionary()
    generator = torch.Generator().manual_seed(seed)

    def train(model: nn.Module, inputs: Tensor, targets: Tensor, epochs: int) -> None:
        optimizer = optimizers.setdefault(model, make_optimizer(model))
        model.train()
        for _ in range(epochs):
            for picked in torch.split(torch.randperm(len(inputs), generator=generator), batch_size):
                optimizer.zero_grad()
                loss_fn(model(inputs[picked]), targets[picked]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()

    return train


@dataclass(frozen=True)
class SubsetSpread(Result):
    """Accuracy over random subsets of one size.

    Args:
        size: samples in each subset.
        mean, deviation: of the accuracy over subsets.
        expected: the deviation that drawing without replacement predicts,
            ``sqrt(p (1 - p) / size * (N - size) / (N - 1))``.
    """

    size: int
    mean: float
    deviation: float
    expected: float


@dataclass(frozen=True)
class StabilityStudy(Result):
    """How far the accuracy of one trained model depends on which part of the test set it is measured with."""

    accuracy: float
    samples: int
    subsets: int
    spreads: tuple[SubsetSpread, ...]

    def smallest(self, deviation: float) -> int | None:
        """The smallest size whose accuracy varies by no more than `deviation`; None where none is so large."""
        return next((spread.size for spread in self.spreads if spread.deviation <= deviation), None)


def stability_study(patient: Patient, sizes: Sequence[int], *, subsets: int = 100, seed: int = 0) -> StabilityStudy:
    """Spread of the accuracy over `subsets` random subsets of each size of the patient's batches.

    The model runs once; subsets are drawn of its hits.

    Raises:
        ValueError: targets are no class labels, or a size is none that can be drawn.
    """
    hits = _hits(patient)
    wrong = [size for size in sizes if not 0 < size <= len(hits)]
    if wrong:
        raise ValueError(f"expected sizes from 1 to {len(hits)}, got {wrong[0]}")
    generator = torch.Generator().manual_seed(seed)
    share = float(hits.mean())
    spreads = []
    for size in sorted(sizes):
        drawn = [float(hits[torch.randperm(len(hits), generator=generator)[:size]].mean()) for _ in range(subsets)]
        found = torch.tensor(drawn, dtype=torch.float64)
        left_over = (len(hits) - size) / max(1, len(hits) - 1)
        expected = math.sqrt(share * (1 - share) / size * left_over)
        spreads.append(SubsetSpread(size, float(found.mean()), float(found.std()), expected))
    return StabilityStudy(share, len(hits), subsets, tuple(spreads))


@dataclass(frozen=True)
class Preliminary(Result):
    """What :func:`preliminary` finds; `stability` is None where targets are no class labels."""

    training: CheckpointStudy
    stability: StabilityStudy | None


def preliminary(
    patient: Patient,
    places: Sequence[Path],
    *,
    gain: float = GAIN,
    subsets: int = 100,
    seed: int = 0,
    progress: Progress = silent,
) -> Preliminary:
    """Both studies that checkpoints of one training and its test set allow; the last checkpoint's is the patient's model.

    Raises:
        SourceError: a checkpoint cannot be read, or does not fit the model.
    """
    training = checkpoint_study(patient, places, gain=gain, progress=progress)
    sizes = sorted({max(1, round(share * patient.samples)) for share in SHARES})
    try:
        stability = stability_study(patient, sizes, subsets=subsets, seed=seed)
    except ValueError:  # no class labels, or several to a sample
        stability = None
    return Preliminary(training, stability)


@torch.no_grad()
def _hits(patient: Patient) -> Tensor:
    """1 for every sample whose largest output is its label, else 0, (samples,)."""
    found = []
    with patient.examined() as subject:
        for batch in subject.batches:
            labels = batch.answers
            outputs = subject.outputs(batch)
            if labels is None or labels.is_floating_point() or not isinstance(outputs, Tensor) or outputs.dim() != 2:
                raise ValueError("expected one class label per sample and a score for each class")
            found.append((outputs.argmax(1) == labels).double().cpu())
    return torch.cat(found)


def _judged(test: Patient, model: nn.Module) -> Evaluation:
    with replace(test, model=model).examined() as subject:
        return subject.evaluate()


def _point(epochs: int, samples: int, found: Evaluation) -> StudyPoint:
    return StudyPoint(epochs, samples, found.loss, found.accuracy)


Point = TypeVar("Point", StudyPoint, CheckpointPoint)


def _enough(points: Sequence[Point], gain: float) -> Point:
    """The first point after which none is better by more than `gain`."""
    scale = abs(points[0].loss) or 1.0
    worth = [-point.loss / scale if point.accuracy is None else point.accuracy for point in points]
    return next(point for index, point in enumerate(points) if max(worth[index:]) - worth[index] <= gain)
