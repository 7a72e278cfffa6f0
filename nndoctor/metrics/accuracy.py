"""Accuracy on the batch that is trained on, and on a test set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from nndoctor.metrics.kinds import KINDS
from nndoctor.subscribers import Bundle, Published, Run, Subscriber, Subscription


class TrainAccuracy(Subscriber):
    """Publishes ``train_accuracy`` from the outputs and labels of the training itself."""

    name = "train_accuracy"
    subscriptions = (Subscription(("outputs", "labels")),)
    signals = (KINDS["train_accuracy"].signal("train_accuracy", "run"),)

    def receive(self, bundle: Bundle) -> Published:
        found = right_answers(bundle["outputs"], bundle["labels"])
        if found is None:
            return None
        right, samples = found
        return torch.where(samples > 0, right / samples, torch.nan)


def train_accuracy() -> Subscriber:
    """Share of the batch that is answered rightly; no pass of its own. Nothing where labels are no classes."""
    return TrainAccuracy()


class TestAccuracy(Subscriber):
    """Publishes ``test_accuracy`` every so many batches."""

    __test__ = False  # for pytest this is no test
    name = "test_accuracy"
    signals = (KINDS["test_accuracy"].signal("test_accuracy", "run"),)

    def __init__(self, loader: Iterable[Any], every: int) -> None:
        self.subscriptions = (Subscription("batch_finished", every=every),)
        self._loader = loader

    def attach(self, run: Run) -> None:
        self._run = run

    def receive(self, bundle: Bundle) -> Published:
        model = next(iter(self._run.models.values()))
        with self._run.probing():
            return accuracy(model, self._loader)


def test_accuracy(loader: Iterable[Any], every: int = 100) -> Subscriber:  # noqa: PT028  # no test
    """Share of the samples of `loader` that the (first) model answers rightly, after every `every`-th batch."""
    return TestAccuracy(loader, every)


test_accuracy.__test__ = False  # type: ignore[attr-defined]


def accuracy(model: nn.Module, loader: Iterable[Any]) -> float | None:
    """Share of right answers, every sample counting the same; None where there is none to count. Waits for the device."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    right = samples = 0.0
    for inputs, labels in loader:
        found = right_answers(model(inputs.to(device)), labels.to(device))
        if found is not None:
            right, samples = right + float(found[0]), samples + float(found[1])
    return right / samples if samples else None


def right_answers(outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor] | None:
    """Number of right answers and of samples; None where outputs and labels are no classes and their scores.

    Scores have one dimension more than labels, the second or the last one. Negative labels do not count.

    >>> [int(n) for n in right_answers(torch.eye(3), torch.tensor([0, 1, 1]))]
    [2, 3]
    """
    labels = labels.to(outputs.device)
    if labels.is_floating_point() or outputs.dim() != labels.dim() + 1 or not outputs.numel():
        return None
    if outputs.shape[0] == labels.shape[0] and outputs.shape[2:] == labels.shape[1:]:
        answers = outputs.argmax(1)
    elif outputs.shape[:-1] == labels.shape:
        answers = outputs.argmax(-1)
    else:
        return None
    counted = labels >= 0
    return ((answers == labels) & counted).sum().float(), counted.sum().float()
