"""Singular values of tensors as matrices (first dimension, rest)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nndoctor.metrics.kinds import KINDS
from nndoctor.metrics.statistics import check_topic
from nndoctor.subscribers import Bundle, Published, Run, Subscriber, Subscription, axis_of


class SpectralNorm(Subscriber):
    """Publishes the largest singular value as ``<topic>.spectral_norm``: power iteration that goes on from step to step."""

    def __init__(self, topic: str = "weights", iterations: int = 3) -> None:
        check_topic(topic)
        self.name = f"{topic}.spectral_norm"
        self.subscriptions = (Subscription(topic),)
        self.signals = (KINDS["TOPIC.spectral_norm"].signal(self.name, axis_of([topic])),)
        self._topic, self._iterations = topic, iterations

    def attach(self, run: Run) -> None:
        self._vectors: dict[tuple[str | None, str | None], Tensor] = {}

    def receive(self, bundle: Bundle) -> Published:
        values: Tensor = bundle[self._topic]
        if values.dim() < 2 or not values.numel():
            return None
        matrix = values.flatten(1).float()  # (rows, columns)
        key = (bundle.layer, bundle.parameter)
        left = self._vectors.get(key)
        if left is None or len(left) != len(matrix):
            left = torch.randn(len(matrix), generator=torch.Generator().manual_seed(0)).to(matrix)  # (rows,)
        for _ in range(self._iterations):
            right = nn.functional.normalize(matrix.T @ left, dim=0)  # (columns,)
            left = matrix @ right  # (rows,)
        self._vectors[key] = nn.functional.normalize(left, dim=0)
        largest: Tensor = torch.linalg.vector_norm(left)
        return largest


class ConditionNumber(Subscriber):
    """Publishes the largest over the smallest singular value as ``<topic>.condition_number``; a whole decomposition each time."""

    def __init__(self, topic: str = "weights") -> None:
        check_topic(topic)
        self.name = f"{topic}.condition_number"
        self.subscriptions = (Subscription(topic),)
        self.signals = (KINDS["TOPIC.condition_number"].signal(self.name, axis_of([topic])),)
        self._topic = topic

    def receive(self, bundle: Bundle) -> Published:
        values: Tensor = bundle[self._topic]
        return condition(values) if values.dim() > 1 and values.numel() else None


def condition(values: Tensor) -> Tensor:
    """Largest over smallest singular value of a tensor as a matrix; infinite for a singular one.

    >>> float(condition(torch.diag(torch.tensor([4.0, 2.0]))))
    2.0
    """
    found: Tensor = torch.linalg.svdvals(values.flatten(1).float())
    return torch.div(found[0], found[-1])


def spectral_norm(topic: str = "weights", iterations: int = 3) -> Subscriber:
    """Largest singular value, from below; `iterations` of power iteration each time."""
    return SpectralNorm(topic, iterations)


def condition_number(topic: str = "weights") -> Subscriber:
    """Largest over smallest singular value; costs a singular value decomposition of every tensor."""
    return ConditionNumber(topic)
