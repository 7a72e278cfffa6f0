"""How much the latent code of a variational autoencoder tells: its divergence from the prior, and units that are active.

The code is found in the graph of the loss, by the divergence from a standard normal that every such loss holds:
a variance, its logarithm and a squared mean of one shape, whether written out or made by ``torch.distributions``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import Measured
from nndoctor.probes.loss_nodes import nodes_of
from nndoctor.probes.nodes import children, name_of, saved, saved_tensor

NEAR = 160
"""Nodes from the end of the loss within which the divergence stands; it is a few operations away."""

SLACK = 24
"""Further nodes looked at on later steps than the first find needed."""

ACTIVE = 0.01
"""Variance over samples of a unit's mean above which it is active (Burda et al. 2016, section 5.2)."""

QUIET_STEPS = 3  # sampled steps without a latent code before the search for it becomes rare
QUIET_EVERY = 16
AVERAGED = 1  # how torch numbers reduction="mean"
SUMS = frozenset(f"{name}Backward{i}" for i in range(3) for name in ("Add", "Sub", "Rsub", "Sum", "Mean", "Neg"))
RECONSTRUCTIONS = ("MseLossBackward0", "BinaryCrossEntropyBackward0", "BinaryCrossEntropyWithLogitsBackward0", "L1LossBackward0")


@dataclass(frozen=True)
class Posterior:
    """The approximate posterior of one batch.

    Args:
        mean, variance: (samples, units).
        averaged_over: elements per sample of a reconstruction error that is averaged over them; None where it is
            summed, or not known.
        depth: how many nodes from the end of the loss it takes to find all of this.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    averaged_over: int | None
    depth: int


def posterior_of(loss: torch.Tensor, most: int = NEAR) -> Posterior | None:
    """The latent code whose divergence from a standard normal is part of `loss`; None where there is none."""
    near = list(nodes_of(loss.grad_fn, most))
    places = {id(node): place for place, node in enumerate(near)}
    for variance, used in _variances(near):
        for node in near:
            if node is used:
                continue
            mean = _squared(node)
            if mean is not None and mean.shape == variance.shape:
                averaged_over, last = _averaged_over(near, mean.shape[0])
                depth = max(places[id(node)], places[id(used)] if used is not None else 0, last) + SLACK
                return Posterior(mean.float().flatten(0, -2), variance.float().flatten(0, -2), averaged_over, depth)
    return None


def _variances(near: Sequence[Any]) -> list[tuple[torch.Tensor, Any]]:
    """Tensors whose value and logarithm both enter the loss, each with the node that squares a scale, if one does."""
    consumers: dict[int, list[Any]] = {}
    for node in near:
        for child in children(node):
            consumers.setdefault(id(child), []).append(node)
    found: list[tuple[torch.Tensor, Any]] = []
    for node in near:
        if name_of(node) == "ExpBackward0":
            # exp(x) beside x; or exp(2 x) beside 2 x
            sources = list(children(node))
            sources += [inner for source in sources if name_of(source) == "MulBackward0" for inner in children(source)]
            if any(len(consumers.get(id(source), ())) > 1 for source in sources):
                _keep_exponential(found, node, consumers.get(id(node), ()))
        elif name_of(node) == "LogBackward0":
            # log(s**2), or log(s) beside s**2
            for child in children(node):
                for squaring in (child, *consumers.get(id(child), ())):
                    scale = _squared(squaring)
                    if scale is not None:
                        _keep(found, scale.square(), squaring)
    return found


def _keep_exponential(found: list[tuple[torch.Tensor, Any]], node: Any, consumers: Sequence[Any]) -> None:
    """Note an exponential that is summed, or squared and then summed; one that is multiplied by noise draws the code."""
    result = saved_tensor(node, "_saved_result")
    for consumer in consumers:
        if name_of(consumer) in SUMS:
            _keep(found, result, None)
        elif result is not None and _squared(consumer) is not None:
            _keep(found, result.square(), consumer)


def _keep(found: list[tuple[torch.Tensor, Any]], variance: object, used: Any) -> None:
    if isinstance(variance, torch.Tensor) and variance.ndim >= 2 and variance.shape[-1] > 1:
        found.append((variance, used))


def _squared(node: Any) -> torch.Tensor | None:
    """What `node` squares, None if it does something else."""
    if name_of(node) == "PowBackward0" and saved(node, "_saved_exponent") == 2:
        return saved_tensor(node, "_saved_self")
    if name_of(node) == "MulBackward0":
        one, other = saved_tensor(node, "_saved_self"), saved_tensor(node, "_saved_other")
        if one is not None and other is not None and one.data_ptr() == other.data_ptr():
            return one
    return None


def _averaged_over(near: Sequence[Any], batch: int) -> tuple[int | None, int]:
    """Elements per sample of an averaged reconstruction error, and the place of its node."""
    for place, node in enumerate(near):
        if name_of(node) in RECONSTRUCTIONS and saved(node, "_saved_reduction") == AVERAGED:
            target = saved_tensor(node, "_saved_target")
            if target is not None and target.ndim and target.shape[0] == batch:
                return target.numel() // batch, place
    return None, 0


def information(posterior: Posterior) -> dict[str, Measured]:
    """Divergence in nats per sample, number of units, and the share of them that are active."""
    mean, variance = posterior.mean, posterior.variance
    divergence = 0.5 * (mean.square() + variance - 1 - variance.clamp_min(1e-30).log())  # (samples, units)
    found: dict[str, Measured] = {
        "latent.divergence": divergence.sum(1).mean(),
        "latent.units": float(mean.shape[1]),
        "latent.active_fraction": (mean.var(0) > ACTIVE).float().mean(),
    }
    if posterior.averaged_over:
        found["latent.averaged_over"] = float(posterior.averaged_over)
    return found


class LatentProbe:
    """Divergence and active units of a variational autoencoder's code, on sampled steps."""

    name = "latent code"
    tier = "graph"
    signals = ("latent.divergence", "latent.units", "latent.active_fraction", "latent.averaged_over")

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
        """Look for a latent code in the graph of the loss, before it is gone."""
        if not self._looking or self._found or not isinstance(loss, torch.Tensor):
            return
        posterior = posterior_of(loss, self._near)
        self._near = posterior.depth if posterior is not None else NEAR
        if posterior is not None and len(posterior.mean) > 1:
            self._found = information(posterior)

    def collect(self) -> Mapping[str, Measured]:
        if self._looking:
            self._quiet_steps = 0 if self._found else self._quiet_steps + 1
        found, self._found = self._found, {}
        return found
