"""Which layers are critical: what becomes of the loss when the training of one layer is taken back.

After Zhang, Bengio & Singer, *Are all layers created equal?* (https://arxiv.org/abs/1902.01996): a layer is put back to its
own initial weights (re-initialisation), or to other random ones (re-randomisation). Layers that bear the first are ambient, which that
work also calls robust, the others critical. Nemcova, *Neural network training progress visualization*, uses robust for the critical ones.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nndoctor.examinations.untouched import seed_generators
from nndoctor.lab.patient import Evaluation, Patient, Subject
from nndoctor.lab.points import (
    Place,
    Weights,
    current_weights,
    digest,
    distance,
    parameter_layers,
    put,
    recompute_norms,
    tensors_of_layer,
    weights_at,
)
from nndoctor.lab.progress import Progress, silent
from nndoctor.lab.results import Result
from nndoctor.lab.workbook import Workbook


@dataclass(frozen=True)
class LayerImpact(Result):
    """What taking back the training of one layer does, all others trained.

    Args:
        loss_change, accuracy_change: with its initial weights minus before.
        standard_error: of the change of the loss, over batches; NaN with fewer than two.
        random_loss_change: the same with random weights, the mean over draws; None where there were none, or the
            layer does not know how to draw its weights (``reset_parameters``).
        random_spread: standard deviation over draws; NaN for a single one.
        travelled, relative: distance the layer's parameters went, and as a share of their initial length.
        critical: the training of this layer cannot be taken back; otherwise it is ambient.
    """

    layer: str
    loss_change: float
    accuracy_change: float | None
    standard_error: float
    travelled: float
    relative: float
    critical: bool
    random_loss_change: float | None = None
    random_spread: float = math.nan


@dataclass(frozen=True)
class LayerImpacts(Result):
    """The impact of every layer, and the limit above which one is called critical.

    Args:
        limit: loss of accuracy (or, without class labels, growth of the loss as a share of that of the whole training)
            from which on a layer is critical.
    """

    layers: tuple[LayerImpact, ...]
    limit: float

    @property
    def critical(self) -> tuple[str, ...]:
        """Layers that cannot be reset, the most sensitive first; nnvis called these robust."""
        found = sorted((row for row in self.layers if row.critical), key=lambda row: -row.loss_change)
        return tuple(row.layer for row in found)

    @property
    def ambient(self) -> tuple[str, ...]:
        """Layers that can be reset without harm; Zhang et al. call these robust, too."""
        return tuple(row.layer for row in self.layers if not row.critical)


def layer_impacts(
    patient: Patient,
    first: Place,
    *,
    layers: Sequence[str] | None = None,
    limit: float = 0.05,
    draws: int = 0,
    recompute_batchnorm: bool = False,
    work: Path | str | None = None,
    progress: Progress = silent,
) -> LayerImpacts:
    """The change of loss and accuracy when one layer is put back to its initial weights, for every layer.

    Args:
        first: the initial weights.
        layers: names of modules; default every module that holds parameters of its own.
        limit: share of accuracy that has to be lost for a layer to be critical; without class labels, share of what the
            whole training gained in loss.
        draws: how often a layer is also given new random weights; the draws are always the same ones.
        recompute_batchnorm: gather running statistics anew each time, for the trained model too.
        work: keep finished layers there; a killed examination goes on from them.
    """
    wanted = tuple(parameter_layers(patient.model) if layers is None else layers)
    start, last = weights_at(patient, first), current_weights(patient.model)
    workbook = Workbook.of(work, "impact", patient, digest(start), recompute_batchnorm)
    with patient.examined() as subject:
        bench = _Bench(subject, start, last, recompute_batchnorm, workbook)
        trained = bench.evaluated("trained", {})
        gained = bench.evaluated("initial", start).loss - trained.loss
        rows = []
        for done, layer in enumerate(wanted, start=1):
            rows.append(bench.impact(layer, trained, gained, limit, draws))
            progress("resetting layers", done, len(wanted))
    return LayerImpacts(tuple(rows), limit)


@dataclass
class _Bench:
    """A copy of the patient, and both its weights."""

    subject: Subject
    start: Weights
    last: Weights
    recompute: bool
    workbook: Workbook
    parameters: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = frozenset(name for name, _ in self.subject.model.named_parameters())

    def impact(self, layer: str, trained: Evaluation, gained: float, limit: float, draws: int) -> LayerImpact:
        names = tensors_of_layer(self.subject.model, layer)
        reset = self.evaluated(f"without {layer}", {name: self.start[name] for name in names})
        change = reset.loss - trained.loss
        accuracy = None if reset.accuracy is None or trained.accuracy is None else reset.accuracy - trained.accuracy
        harm = change / max(gained, 1e-12) if accuracy is None else -accuracy
        random = [loss - trained.loss for loss in self.random_losses(layer, draws)]
        return LayerImpact(
            layer,
            change,
            accuracy,
            _standard_error([a - b for a, b in zip(reset.losses, trained.losses, strict=True)]),
            *distance(self.start, self.last, [name for name in names if name in self.parameters]),
            critical=harm > limit,
            random_loss_change=statistics.fmean(random) if random else None,
            random_spread=statistics.stdev(random) if len(random) > 1 else math.nan,
        )

    def evaluated(self, key: str, moved: Weights) -> Evaluation:
        """Loss and accuracy with these weights in place of the trained ones."""
        if key not in self.workbook:
            put(self.subject, self.last)
            put(self.subject, moved)
            self._evaluate(key)
        return self._known(key)

    def random_losses(self, layer: str, draws: int) -> list[float]:
        module = self.subject.model if layer == "(root)" else self.subject.model.get_submodule(layer)
        resets = [each.reset_parameters for each in module.modules() if callable(getattr(each, "reset_parameters", None))]
        found = []
        for seed in range(draws if resets else 0):
            key = f"random {layer} {seed}"
            if key not in self.workbook:
                put(self.subject, self.last)
                seed_generators(seed)
                for reset in resets:
                    reset()  # type: ignore[operator]  # was found callable
                self._evaluate(key)
            found.append(self._known(key).loss)
        return found

    def _evaluate(self, key: str) -> None:
        if self.recompute:
            recompute_norms(self.subject)
        found = self.subject.evaluate()
        self.workbook.put(key, [found.loss, found.accuracy, found.losses, found.sizes])

    def _known(self, key: str) -> Evaluation:
        loss, accuracy, losses, sizes = self.workbook.get(key)
        return Evaluation(loss, accuracy, tuple(losses), tuple(sizes))


def _standard_error(differences: Sequence[float]) -> float:
    """Of the mean of `differences`; NaN of fewer than two."""
    if len(differences) < 2:
        return math.nan
    return statistics.stdev(differences) / math.sqrt(len(differences))
