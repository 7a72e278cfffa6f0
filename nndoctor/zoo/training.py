"""A trainer that takes model, data set and optimizer by name, measures what it is asked for, and has the doctor at its side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ExponentialLR, LRScheduler

import nndoctor
from nndoctor.lab.schedules import ExponentialRatioLR, ListingRatioLR, RatioLR, RecursiveRatioLR
from nndoctor.lab.trail import Trail
from nndoctor.zoo.case import NoDoctor
from nndoctor.zoo.datasets import DataSet, data_set
from nndoctor.zoo.measures import TOPICS, Histogram, Ratio, SpectralNorm, Statistic, Tap, norm, variance
from nndoctor.zoo.models import MODELS, model_named
from nndoctor.zoo.optimizers import optimizer_named
from nndoctor.zoo.seeding import seed_everything
from nndoctor.zoo.trainer import Observer, evaluate
from nndoctor.zoo.writers import WRITERS, Writer

if TYPE_CHECKING:
    from nndoctor.lab import Patient
    from nndoctor.lab.representation import Activations

PROBE_POINTS = 500
"""Test samples that layers are compared with themselves on."""

CURVATURE_POINTS = 500
"""Training samples that the Hessian is taken on, always the same."""

SCHEDULES = ("recursive", "listing", "exponential-ratio")

TEST_EVERY = 100
"""Batches between two looks at the test set."""


@dataclass(frozen=True)
class TrainOptions:
    """Everything that ``nndoctor train`` can be told.

    Args:
        model, dataset, optimizer: by name.
        learning_rate: of the optimizer.
        exponential_decay: factor on the learning rate after each epoch.
        schedule: of the learning rate by the ratio of update to weight, after every step: ``recursive``, ``listing`` or
            ``exponential-ratio`` (see :mod:`nndoctor.lab.schedules`); None: none.
        subsample: optimizer steps between two measurements.
        depth: of the layers looked at; -1: leaves.
        variance, norm, histogram, spectral_norm: topics to measure (see :data:`nndoctor.zoo.measures.TOPICS`).
        ratio: pairs of topics, as ``weight_updates,weights``.
        ratio_average: measurements that a ratio is averaged over.
        train_accuracy, test_accuracy: of the current batch; of the test set every 100 batches.
        svcca: similarity of each layer to itself an epoch ago.
        hessian: leading eigenvalue of the Hessian after each epoch.
        visualisation: ``tb``, ``mpl``, ``jsonl``.
        log_dir: where that is written.
        checkpoints: folder for the initial weights and those after each epoch, as ``step-<steps>.pt``; None: none.
        trail: file for the way of the weights through all steps, kept small (see :mod:`nndoctor.lab.trail`); None: none.
        doctor: attach the doctor, with this kind of panel; None: do not.
        size, folder, download: of the data set.
    """

    model: str = "alexnetmini"
    dataset: str = "fashion-mnist-small"
    batch_size: int = 128
    epochs: int = 10
    optimizer: str = "Adam"
    learning_rate: float = 0.01
    exponential_decay: float | None = None
    schedule: str | None = None
    ratio_average: int = 10
    subsample: int = 1
    depth: int = -1
    variance: tuple[str, ...] = ()
    norm: tuple[str, ...] = ()
    histogram: tuple[str, ...] = ()
    spectral_norm: tuple[str, ...] = ()
    ratio: tuple[tuple[str, str], ...] = ()
    train_accuracy: bool = False
    test_accuracy: bool = False
    svcca: bool = False
    hessian: bool = False
    visualisation: str = "jsonl"
    log_dir: Path = Path("runs")
    checkpoints: Path | None = None
    trail: Path | None = None
    seed: int = 1234
    doctor: str | None = "off"
    size: int | None = None
    folder: Path | None = None
    download: bool = False


@dataclass(frozen=True)
class BatchResult:
    """Loss and number of right answers of one batch."""

    loss: float
    right: int
    samples: int


class Trainer:
    """Model, data, optimizer and measurements together; :meth:`train_batch` trains on the next batch.

    Raises:
        ValueError: a name is unknown or an option out of range (UnknownModel, UnknownOptimizer and kin).
        DataUnavailable: the data set is not on this machine.
        WriterUnavailable: a package that the visualisation needs is not installed.
    """

    def __init__(self, options: TrainOptions) -> None:
        _check(options)
        self.options = options
        self.data = sized_data(options)
        if self.batches_per_epoch < 1:
            raise ValueError(f"batch size {options.batch_size} is larger than the {self.data.count} training samples")
        seed_everything(options.seed)
        self.model = model_named(options.model, self.data.shape, self.data.classes)
        self.loss_fn: Any = nn.NLLLoss() if options.model.lower() == "pathnet" else nn.CrossEntropyLoss()
        self.optimizer = optimizer_named(options.optimizer, self.model, lr=options.learning_rate)
        self.schedule: LRScheduler | None = None
        if options.exponential_decay is not None:
            self.schedule = ExponentialLR(self.optimizer, options.exponential_decay)
        self.step_schedule = self._ratio_schedule()
        self.loader = self.data.train_loader(options.batch_size, seed=options.seed)
        self.writer: Writer = WRITERS[options.visualisation](options.log_dir)
        self.tap = Tap(self.model, self.optimizer, depth=options.depth, every=options.subsample)
        self._subscribe()
        self._earlier: tuple[Activations, ...] | None = None
        self._batches: Iterator[Any] = iter(())
        self._batch = 0
        self.doctor: nndoctor.Doctor | None = None
        observer: Observer = NoDoctor()
        if options.doctor is not None:
            observer = self.doctor = nndoctor.wrap(
                self.model, self.optimizer, self.loss_fn, loader=self.loader, ui=options.doctor, name=options.model
            )
        self._observer = observer
        self._trail = None if options.trail is None else Trail(self.model).follow(self.optimizer)
        self._save()

    @property
    def batches_per_epoch(self) -> int:
        """Full batches; a last smaller one is left out."""
        return self.data.count // self.options.batch_size

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self._batch // self.batches_per_epoch

    def set_schedule(self, schedule: LRScheduler | None) -> None:
        """Advance `schedule` after each epoch, instead of the one there was."""
        self.schedule = schedule

    def train_batch(self) -> BatchResult:
        """Train on the next batch; the end of an epoch brings evaluation, schedule and what is measured once an epoch."""
        if self._batch % self.batches_per_epoch == 0:
            self._batches = iter(self.loader)
            self.tap.epoch = self.epoch
        inputs, targets = next(self._batches)
        sampled = self.tap.step % self.options.subsample == 0
        self.model.train()
        outputs = self.model(inputs)
        loss: Tensor = self.loss_fn(outputs, targets)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if self.step_schedule is not None:
            self.step_schedule.step()
        result = BatchResult(loss.item(), int((outputs.argmax(1) == targets).sum()), len(targets))
        if sampled:
            self.writer.add_data("loss", result.loss, self._batch)
            if self.step_schedule is not None:
                self.writer.add_data("learning_rate", float(self.step_schedule.get_last_lr()[0]), self._batch)
            if self.options.train_accuracy:
                self.writer.add_data("train_accuracy", result.right / result.samples, self._batch)
        self._batch += 1
        if self.options.test_accuracy and self._batch % TEST_EVERY == 0:
            self.writer.add_data("test_accuracy", self.evaluate()[1], self._batch)
        if self._batch % self.batches_per_epoch == 0:
            self._end_epoch()
        return result

    def train(self) -> Iterator[tuple[int, float, float]]:
        """Train for the epochs that were asked for; after each: epochs done, loss and accuracy on the test set."""
        for _ in range(self.options.epochs):
            for _ in range(self.batches_per_epoch):
                self.train_batch()
            loss, accuracy = self.evaluate()
            self._observer.observe(val_loss=loss, accuracy=accuracy)
            self.writer.add_data("test_loss", loss, self._batch)
            if self.options.test_accuracy:
                self.writer.add_data("test_accuracy", accuracy, self._batch)
            yield self.epoch, loss, accuracy

    def evaluate(self) -> tuple[float, float]:
        """Mean loss and accuracy over all test samples, in eval mode; mode and random generators are left as they are."""
        return evaluate(self.model, self.loss_fn, self.data.test_loader())

    def close(self) -> None:
        """Finish files and let go of the model; measured figures are drawn now."""
        self.tap.detach()
        if self._trail is not None and self.options.trail is not None:
            self._trail.detach()
            self._trail.record().save(self.options.trail)
        if self.doctor is not None:
            self.doctor.close()
        self.writer.close()

    def _subscribe(self) -> None:
        options, writer = self.options, self.writer
        wanted: list[Any] = []
        if options.variance:
            wanted.append(Statistic(writer, "variance", variance, options.variance))
        if options.norm:
            wanted.append(Statistic(writer, "norm2", norm, options.norm))
        if options.histogram:
            wanted.append(Histogram(writer, options.histogram))
        if options.spectral_norm:
            wanted.append(SpectralNorm(writer, options.spectral_norm))
        wanted += [Ratio(writer, first, second, options.ratio_average) for first, second in options.ratio]
        for listener in wanted:
            self.tap.listen(listener)

    def _ratio_schedule(self) -> RatioLR | None:
        kind = self.options.schedule
        if kind is None:
            return None
        if kind == "exponential-ratio":
            return ExponentialRatioLR(self.optimizer, steps_per_epoch=self.batches_per_epoch)
        return RecursiveRatioLR(self.optimizer) if kind == "recursive" else ListingRatioLR(self.optimizer)

    def _save(self) -> None:
        folder = self.options.checkpoints
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(self.model.state_dict(), folder / f"step-{self._batch}.pt")

    def _end_epoch(self) -> None:
        self._save()
        if self.schedule is not None:
            self.schedule.step()
            self.writer.add_data("learning_rate", float(self.schedule.get_last_lr()[0]), self._batch)
        if self.options.svcca:
            self._compare_with_earlier()
        if self.options.hessian:
            from nndoctor.lab.curvature import hessian_eigenpairs

            found = hessian_eigenpairs(self._patient(train=True, count=CURVATURE_POINTS), 1)
            self.writer.add_data("hessian_eigenvalue", found.values[0], self._batch)

    def _compare_with_earlier(self) -> None:
        from nndoctor.lab.representation import activations, similarity

        with self._patient(train=False, count=PROBE_POINTS).examined() as subject:
            now = activations(subject)
        if self._earlier is not None:
            for before, after in zip(self._earlier, now, strict=True):
                self.writer.add_data(f"self_similarity/{after.name}", similarity(before, after, "svcca"), self._batch)
        self._earlier = now

    def _patient(self, *, train: bool, count: int) -> Patient:
        """The model as it is now, on the first samples of the training or test set."""
        from nndoctor.lab import Patient

        samples = self.data.train if train else self.data.test
        pairs = [samples[index] for index in range(min(count, len(samples)))]  # type: ignore[arg-type]
        batch = (torch.stack([image for image, _ in pairs]), torch.tensor([int(label) for _, label in pairs]))
        return Patient.of(self.model, self.loss_fn, batch)


def sized_data(options: TrainOptions) -> DataSet:
    """The data set, at the size that the model takes where none was asked for: 32 pixels for images of 28."""
    found = data_set(options.dataset, size=options.size, folder=options.folder, download=options.download)
    _, sizes = MODELS.get(options.model.lower().replace("-", "").replace("_", ""), (None, 1))
    side = found.shape[1]
    too_small = isinstance(sizes, int) and side < sizes <= 32
    if options.size is None and too_small and not options.dataset.startswith("images:"):
        return data_set(options.dataset, size=32, folder=options.folder, download=options.download)
    return found


def _check(options: TrainOptions) -> None:
    for name, least in (("batch_size", 1), ("epochs", 0), ("subsample", 1), ("ratio_average", 1), ("depth", -1)):
        if getattr(options, name) < least:
            raise ValueError(f"{name}: expected at least {least}, got {getattr(options, name)}")
    if options.schedule not in (None, *SCHEDULES):
        raise ValueError(f"schedule: expected {', '.join(SCHEDULES)}, got {options.schedule!r}")
    if options.visualisation not in WRITERS:
        raise ValueError(f"visualisation: expected {', '.join(WRITERS)}, got {options.visualisation!r}")
    pairs = (topic for pair in options.ratio for topic in pair)
    for topic in (*options.variance, *options.norm, *options.histogram, *options.spectral_norm, *pairs):
        if topic not in TOPICS:
            raise ValueError(f"no topic is called {topic!r}; there are {', '.join(TOPICS)}")
