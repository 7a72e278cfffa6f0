"""Examinations of the lab, made after every epoch on fixed batches: sharpness, how far layers have changed, and which can go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nndoctor.lab import Patient
from nndoctor.lab.curvature import hessian_eigenpairs
from nndoctor.lab.representation import activations, similarity
from nndoctor.lab.unhelpful import unhelpful_layers
from nndoctor.metrics.kinds import KINDS
from nndoctor.signals import Axis
from nndoctor.subscribers import Bundle, Published, Run, Subscriber, Subscription

LossFunction = Callable[..., Tensor]


class AfterEpochs(Subscriber):
    """What they have in common: batches, and a patient made of the model as it is."""

    def __init__(self, name: str, per: Axis, batches: Any, loss_fn: LossFunction | None) -> None:
        self.name = name
        self.subscriptions = (Subscription("epoch_finished"),)
        self.signals = (KINDS[name].signal(name, per),)
        self._batches, self._loss_fn = batches, loss_fn

    def attach(self, run: Run) -> None:
        self._run = run

    def patient(self) -> Patient:
        """The first model of the run on the batches. Raises ValueError where no loss is known."""
        loss_fn = self._loss_fn or self._run.loss_fn
        if loss_fn is None:
            raise ValueError(f"{self.name} needs the loss: give it here or to nndoctor.wrap")
        return Patient.of(next(iter(self._run.models.values())), loss_fn, self._batches)


class HessianEigenvalue(AfterEpochs):
    """Publishes ``hessian_eigenvalue`` after every epoch."""

    def receive(self, bundle: Bundle) -> Published:
        with self._run.probing(), torch.enable_grad():
            return float(hessian_eigenpairs(self.patient(), 1).values[0])


class SelfSimilarity(AfterEpochs):
    """Publishes ``self_similarity`` of each layer after every epoch but the first."""

    def attach(self, run: Run) -> None:
        super().attach(run)
        self._earlier: dict[str, Any] = {}

    def receive(self, bundle: Bundle) -> Published:
        with self._run.probing(), self.patient().examined() as subject:
            found = {layer.name: layer for layer in activations(subject)}
        earlier, self._earlier = self._earlier, found
        return {self.name: {name: similarity(earlier[name], now, "svcca") for name, now in found.items() if name in earlier}}


class RemovalCost(AfterEpochs):
    """Publishes ``removal_cost`` of each layer with parameters of its own after every epoch."""

    def receive(self, bundle: Bundle) -> Published:
        with self._run.probing():
            patient = self.patient()
            found = unhelpful_layers(patient)
        own = {name for name, module in patient.model.named_modules() if next(module.parameters(recurse=False), None) is not None}
        return {self.name: {each.name: each.difference + 2 * each.error - found.margin for each in found.effects if each.name in own}}


def hessian_eigenvalue(batches: Any, loss_fn: LossFunction | nn.Module | None = None) -> Subscriber:
    """Eigenvalue of the Hessian of largest magnitude after every epoch; seconds each time.

    Args:
        batches: what :meth:`nndoctor.lab.Patient.of` takes: a batch, several, or a loader; always the same samples.
        loss_fn: the loss; by default what the doctor was told.
    """
    return HessianEigenvalue("hessian_eigenvalue", "run", batches, loss_fn)


def self_similarity(batches: Any, loss_fn: LossFunction | nn.Module | None = None) -> Subscriber:
    """SVCCA of every layer with itself an epoch ago; arguments as for :func:`hessian_eigenvalue`."""
    return SelfSimilarity("self_similarity", "layer", batches, loss_fn)


def removal_cost(batches: Any, loss_fn: LossFunction | nn.Module | None = None) -> Subscriber:
    """What the loss would gain without each layer, so that a rule can name those that can go; seconds to minutes each time.

    Args:
        batches: held out from training; otherwise as for :func:`hessian_eigenvalue`.
    """
    return RemovalCost("removal_cost", "layer", batches, loss_fn)
