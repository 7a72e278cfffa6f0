"""What metrics there are: names, units and formulas. Imports no torch, so that they are listed quickly."""

from __future__ import annotations

from typing import NamedTuple

from nndoctor.signals import CATALOGUE, Axis, Signal

TENSORS = (
    "inputs", "activations", "outputs", "loss", "layer_gradients", "weights", "biases", "weight_gradients", "bias_gradients",
    "weight_updates", "bias_updates",
)  # fmt: skip
"""What statistics can be taken of."""


class Kind(NamedTuple):
    """One kind of metric.

    Args:
        name: as it is asked for; ``TOPIC`` stands for one of ``TENSORS``, ``P`` for a number or ``inf``.
        unit, formula: of the signal that it publishes.
        reference: where it comes from.
        needs: what it cannot be switched on without by name alone.
    """

    name: str
    unit: str
    formula: str
    reference: str = ""
    needs: str = ""

    def signal(self, name: str, per: Axis) -> Signal:
        return Signal(name, per, self.unit, self.formula, self.reference)


DIEDERICHSEN = "Diederichsen 2019, Live introspection for neural network training (ikkuna), table 2.3"
MIYATO = "Miyato et al. 2018, Spectral normalization for generative adversarial networks, https://arxiv.org/abs/1802.05957"
KINGMA = "Kingma & Ba 2015, Adam, algorithm 1, https://arxiv.org/abs/1412.6980"

_REMOVAL = CATALOGUE["removal_cost"]  # declared there, since a rule of `core` reads it

KINDS = {
    kind.name: kind
    for kind in (
        Kind("TOPIC.mean", "1", "Mean over the elements."),
        Kind("TOPIC.variance", "1", "Unbiased variance over the elements, sum (x - mean)^2 / (n - 1); 0 for a single one."),
        Kind("TOPIC.sum", "1", "Sum over the elements."),
        Kind("TOPIC.normP", "1", "(sum |x|^P)^(1/P) over the elements; P = 2 is the Euclidean length, inf the largest magnitude."),
        Kind("TOPIC.per.TOPIC", "ratio", "Euclidean norm of the first over that of the second, averaged over the last measurements; absent where the second is 0.", DIEDERICHSEN),
        Kind("TOPIC.spectral_norm", "1", "Largest singular value of the tensor as a matrix (first dimension, rest), from below: power iteration that goes on from step to step.", MIYATO),
        Kind("TOPIC.condition_number", "ratio", "Largest over smallest singular value of the tensor as a matrix (first dimension, rest); infinite for a singular one."),
        Kind("TOPIC.histogram", "count", "Counts in 50 bins between the smallest and the largest element; they add up to the finite elements. Kept in the run's folder, no signal."),
        Kind("SIGNAL.over_layers", "1", "Mean of a published signal over all layers or parameters of a step.", DIEDERICHSEN),
        Kind("train_accuracy", "fraction", "Share of the batch that is answered rightly: correct / samples, without a pass of its own."),
        Kind("test_accuracy", "fraction", "Share of a test set that is answered rightly, every sample counting the same.", "", "a loader of the test set"),
        Kind("adam", "1", "What Adam keeps: moments, raw and corrected, and the effective rate -update / gradient, each as mean, median, variance and norm.", KINGMA),
        Kind("hessian_eigenvalue", "1", "Eigenvalue of the Hessian of largest magnitude, by Lanczos on fixed batches, after every epoch.", "", "batches"),
        Kind("self_similarity", "fraction", "SVCCA of each layer with itself an epoch ago, on fixed batches.", "Raghu et al. 2017, SVCCA, https://arxiv.org/abs/1706.05806", "batches"),
        Kind("removal_cost", _REMOVAL.unit, _REMOVAL.help, _REMOVAL.reference, "batches"),
    )
}  # fmt: skip
