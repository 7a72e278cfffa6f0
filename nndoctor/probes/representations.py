"""Whether embeddings that a loss compares still differ: their spread over directions, and how many of these they use.

Such embeddings are found in the graph of the loss, where it takes their norms or their distances from each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import Measured
from nndoctor.probes.loss_nodes import nodes_of
from nndoctor.probes.nodes import children, name_of, saved, saved_tensor

KEPT_BY: Mapping[str, str] = {
    "LinalgVectorNormBackward0": "self",
    "NormBackward1": "self",
    "CosineSimilarityBackward0": "x1",
    "CdistBackward0": "x1",
    "EuclideanDistBackward0": "x1",
    "PdistBackward0": "self",
}
"""Nodes that compare embeddings, and the name under which they keep them."""

NEAR = 120
"""Nodes from the end of the loss within which it compares; two views of a symmetric loss are a few dozen."""

FEWEST_SAMPLES, FEWEST_FEATURES = 8, 4
SAMPLES, FEATURES = 256, 1024
QUIET_STEPS = 3  # sampled steps without a comparison before the search for one becomes rare
QUIET_EVERY = 16


def compared_by(loss: torch.Tensor, most: int = NEAR) -> tuple[torch.Tensor, int] | None:
    """The nearest embeddings (samples, features) whose norms or distances `loss` takes, and how many nodes away.

    Norms of parameters, as in a penalty, do not count, nor do those of whole tensors.
    """
    for place, node in enumerate(nodes_of(loss.grad_fn, most)):
        key = KEPT_BY.get(name_of(node))
        if key is None or all(name_of(child) == "AccumulateGrad" for child in children(node)):
            continue
        value = saved_tensor(node, f"_saved_{key}")
        if value is not None and _are_embeddings(value) and _along_features(node):
            return value, place
    return None


def _are_embeddings(value: torch.Tensor) -> bool:
    return (
        value.ndim == 2 and value.shape[0] >= FEWEST_SAMPLES and value.shape[1] >= FEWEST_FEATURES
        and value.is_floating_point()
    )  # fmt: skip


def _along_features(node: Any) -> bool:
    """Whether a norm runs over the features of each sample, rather than over samples or everything."""
    if not name_of(node).endswith(("NormBackward0", "NormBackward1")):
        return True
    dim = saved(node, "_saved_dim")
    dims = dim if isinstance(dim, (tuple, list)) else (dim,)
    return len(dims) == 1 and dims[0] in (1, -1, (1 << 64) - 1)


def differences(embeddings: torch.Tensor) -> dict[str, Measured]:
    """Spread of the directions, 1 if they are anywhere alike and 0 if all are one, and the effective number of dimensions.

    The spread is the standard deviation of the normalised features times the root of their number (Chen & He 2021). The
    dimensions are the participation ratio of the covariance, (sum of eigenvalues)^2 / sum of squares, from its trace.
    """
    some = embeddings[:: -(-embeddings.shape[0] // SAMPLES), :FEATURES].float()
    directions = some / some.norm(dim=1, keepdim=True).clamp_min(1e-12)  # (samples, features)
    apart = directions - directions.mean(0)
    gram = apart @ apart.t()  # (samples, samples)
    energy = gram.diagonal().sum()
    return {
        "representation.spread": (energy / len(some)).sqrt(),
        "representation.dimensions": energy.square() / gram.square().sum().clamp_min(1e-30),
    }


class RepresentationProbe:
    """Spread and dimensions of the embeddings that a loss compares with each other, on sampled steps."""

    name = "representations"
    tier = "graph"
    signals = ("representation.spread", "representation.dimensions")

    def __init__(self) -> None:
        self._looking = False
        self._sampled_steps = 0
        self._quiet_steps = 0
        self._near = NEAR
        self._found: dict[str, Measured] = {}

    def attach(self, index: ModelIndex) -> None:
        pass

    def detach(self) -> None:
        self._found = {}

    def begin_step(self, step: int, sampled: bool) -> None:
        self._found = {}
        self._sampled_steps += sampled
        self._looking = sampled and (self._quiet_steps < QUIET_STEPS or self._sampled_steps % QUIET_EVERY == 0)

    @torch.no_grad()
    def backward_begins(self, loss: object) -> None:
        if not self._looking or self._found or not isinstance(loss, torch.Tensor):
            return
        found = compared_by(loss, self._near)
        self._near = found[1] + 8 if found is not None else NEAR
        if found is not None:
            self._found = differences(found[0])

    def collect(self) -> Mapping[str, Measured]:
        if self._looking:
            self._quiet_steps = 0 if self._found else self._quiet_steps + 1
        found, self._found = self._found, {}
        return found
