"""A trainer that takes model, data set and optimizer by name, measures what it is asked for, and has the doctor at its side."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ExponentialLR, LRScheduler

import nndoctor
from nndoctor import Bundle, Subscriber, Subscription, metrics
from nndoctor.lab.schedules import ExponentialRatioLR, ListingRatioLR, RatioLR, RecursiveRatioLR
from nndoctor.lab.trail import Trail
from nndoctor.metrics.names import parsed_all
from nndoctor.record import new_run_folder
from nndoctor.zoo.datasets import DataSet, data_set
from nndoctor.zoo.models import MODELS, model_named
from nndoctor.zoo.optimizers import optimizer_named
from nndoctor.zoo.seeding import seed_everything
from nndoctor.zoo.trainer import evaluate
from nndoctor.zoo.writers import WRITERS, Writer

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
        momentum: of the optimizer; None: its own default.
        exponential_decay: factor on the learning rate after each epoch.
        schedule: of the learning rate by the ratio of update to weight, after every step: ``recursive``, ``listing`` or
            ``exponential-ratio`` (see :mod:`nndoctor.lab.schedules`); None: none.
        subsample: optimizer steps between two measurements.
        depth: of the layers looked at; -1: leaves.
        variance, norm, histogram, spectral_norm: topics to measure (see :data:`nndoctor.subscribers.TOPICS`).
        ratio: pairs of topics, as ``weight_updates,weights``.
        ratio_average: measurements that a ratio is averaged over.
        metrics: more of them, as ``nndoctor run --metric`` takes them.
        train_accuracy, test_accuracy: of the current batch; of the test set every 100 batches.
        svcca: similarity of each layer to itself an epoch ago.
        hessian: leading eigenvalue of the Hessian after each epoch.
        visualisation: ``tb``, ``mpl``, ``jsonl``.
        log_dir: where that is written.
        checkpoints: folder for the initial weights and those after each epoch, as ``step-<steps>.pt``; None: none.
        trail: file for the way of the weights through all steps, kept small (see :mod:`nndoctor.lab.trail`); None: none.
        doctor: attach the doctor, with this kind of panel; None: nothing is judged.
        size, folder, download: of the data set.
        threads: of the processor that torch may use; None: as many as it takes.
    """

    model: str = "alexnetmini"
    dataset: str = "fashion-mnist-small"
    batch_size: int = 128
    epochs: int = 10
    optimizer: str = "Adam"
    learning_rate: float = 0.01
    momentum: float | None = None
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
    metrics: tuple[str, ...] = ()
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
    threads: int | None = None

    def settings(self) -> dict[str, Any]:
        """Everything but places, as plain data: what the record of the run says about how it was made."""
        held = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}
        return {name: value for name, value in held.items() if name not in PLACES}

    def repetition(self, number: int) -> TrainOptions:
        """The same with another seed, everything that is written in a folder ``repetition-<number>`` of its own."""

        def own(place: Path | None) -> Path | None:
            return None if place is None else place / f"repetition-{number}"

        trail = None if self.trail is None else self.trail.with_name(f"{self.trail.stem}-{number}{self.trail.suffix}")
        log_dir = self.log_dir / f"repetition-{number}"
        return replace(self, seed=self.seed + number - 1, log_dir=log_dir, checkpoints=own(self.checkpoints), trail=trail)


PLACES = frozenset({"log_dir", "checkpoints", "trail", "folder"})
"""Options that name files; a record is shown to others, so they stay out of it."""


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
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        self.model = model_named(options.model, self.data.shape, self.data.classes)
        self.loss_fn: Any = nn.NLLLoss() if options.model.lower() == "pathnet" else nn.CrossEntropyLoss()
        momentum = {} if options.momentum is None else {"momentum": options.momentum}
        self.optimizer = optimizer_named(options.optimizer, self.model, lr=options.learning_rate, **momentum)
        self.schedule: LRScheduler | None = None
        if options.exponential_decay is not None:
            self.schedule = ExponentialLR(self.optimizer, options.exponential_decay)
        self.step_schedule = self._ratio_schedule()
        self.loader = self.data.train_loader(options.batch_size, seed=options.seed)
        self.writer: Writer = WRITERS[options.visualisation](options.log_dir)
        self._batches: Iterator[Any] = iter(())
        self._batch = 0
        wanted = self._metrics()
        self.doctor: nndoctor.Doctor | None = None
        if options.doctor is not None or wanted:
            self.doctor = nndoctor.wrap(
                self.model, self.optimizer, self.loss_fn, loader=self.loader, ui=options.doctor or "off", name=options.model,
                rules=() if options.doctor is None else ("core",), subscribers=wanted,
                run_dir=new_run_folder(options.model, time.time(), options.log_dir) if options.doctor is None else None,
            )  # fmt: skip
            self.doctor.facts["settings"] = options.settings()
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
        inputs, targets = next(self._batches)
        sampled = self._batch % self.options.subsample == 0
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
        self._batch += 1
        if self._batch % self.batches_per_epoch == 0:
            self._end_epoch()
        return result

    def train(self) -> Iterator[tuple[int, float, float]]:
        """Train for the epochs that were asked for; after each: epochs done, loss and accuracy on the test set."""
        for _ in range(self.options.epochs):
            for _ in range(self.batches_per_epoch):
                self.train_batch()
            loss, accuracy = self.evaluate()
            if self.doctor is not None:
                self.doctor.observe(val_loss=loss, accuracy=accuracy)
            self.writer.add_data("test_loss", loss, self._batch)
            if self.options.test_accuracy:
                self.writer.add_data("test_accuracy", accuracy, self._batch)
            yield self.epoch, loss, accuracy

    def evaluate(self) -> tuple[float, float]:
        """Mean loss and accuracy over all test samples, in eval mode; mode and random generators are left as they are."""
        return evaluate(self.model, self.loss_fn, self.data.test_loader())

    def close(self) -> None:
        """Finish files and let go of the model; measured figures are drawn now."""
        if self._trail is not None and self.options.trail is not None:
            self._trail.detach()
            self._trail.record().save(self.options.trail)
        if self.doctor is not None:
            self.doctor.close()
        self.writer.close()

    def _metrics(self) -> list[Subscriber]:
        """The subscribers that were asked for, and one that writes down what they publish."""
        options = self.options
        sampled = [
            *(metrics.variance(topic) for topic in options.variance),
            *(metrics.norm(topic) for topic in options.norm),
            *(metrics.histogram(topic, self._keep_histogram) for topic in options.histogram),
            *(metrics.spectral_norm(topic) for topic in options.spectral_norm),
            *(metrics.ratio(first, second, options.ratio_average) for first, second in options.ratio),
            *([metrics.train_accuracy()] if options.train_accuracy else []),
        ]
        wanted = [one.on(depth=options.depth, every=options.subsample) for one in sampled]
        wanted += parsed_all(options.metrics)
        if options.test_accuracy:
            wanted.append(metrics.test_accuracy(self.data.test_loader(), TEST_EVERY).on(every=TEST_EVERY))
        if options.svcca:
            wanted.append(metrics.self_similarity(self._batch_of(self.data.test, PROBE_POINTS)))
        if options.hessian:
            wanted.append(metrics.hessian_eigenvalue(self._batch_of(self.data.train, CURVATURE_POINTS)))
        published = list(dict.fromkeys(signal.name for subscriber in wanted for signal in subscriber.signals))
        return [*wanted, Chronicle(self.writer, published)] if published else wanted

    def _keep_histogram(self, name: str, values: Tensor, step: int) -> None:
        self.writer.add_histogram(name, values, step - 1)

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

    @staticmethod
    def _batch_of(samples: Any, count: int) -> tuple[Tensor, Tensor]:
        """The first samples of a data set as one batch."""
        pairs = [samples[index] for index in range(min(count, len(samples)))]
        return torch.stack([image for image, _ in pairs]), torch.tensor([int(label) for _, label in pairs])


class Chronicle(Subscriber):
    """Writes down what other subscribers publish, as ``signal/target``."""

    name = "chronicle"

    def __init__(self, writer: Writer, signals: Sequence[str]) -> None:
        self._writer = writer
        self.subscriptions = tuple(Subscription(signal) for signal in signals)

    def receive(self, bundle: Bundle) -> None:
        for signal, value in bundle.values.items():
            target = bundle.parameter or bundle.layer
            self._writer.add_data(f"{signal}/{target}" if target else signal, float(value), bundle.step - 1)


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
