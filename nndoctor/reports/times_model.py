"""A model of training time: learns from recorded runs what layers cost on this machine, and predicts layers and networks not seen.

Per family of layers and pass, time is a sum of what each call, each operation and each byte costs (non-negative least squares of
relative errors: each term is a cost, so none may be negative), times a correction learnt from similar layers. What an
interval promises is what leaving out one recorded network after the other showed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nndoctor.record import RecordReader
from nndoctor.signals import Targets

Array: TypeAlias = NDArray[np.float64]
Pass: TypeAlias = Literal["forward", "backward"]
PASSES: tuple[Pass, ...] = ("forward", "backward")

QUIET = 0.25
"""Times are lower quartiles over the steps: what interrupts a step only ever adds to it."""

ENOUGH_LAYERS = 6
"""Recorded layers of a family without which it is not predicted by itself but by all layers together."""

BANDWIDTH = 0.7
"""Layers whose logarithms of work differ by this are similar: a factor of two."""

REACH = 1.5
"""Work may lie outside of what was recorded by this factor; beyond, a prediction is an extrapolation."""

TOLERATED = 0.1
"""Share of the predicted time that extrapolated layers may have without a refusal."""

CONFIDENCE = 0.9


@dataclass(frozen=True, slots=True)
class LayerWork:
    """What one layer has to do in a step.

    Args:
        flops: of the forward pass; NaN for a kind whose work is not known.
        activation_bytes: read and returned; parameter_bytes: of its own parameters.
        calls: operations that wait for each other: time steps of a recurrent layer, else calls.
        first: it reads the model's input, so its backward pass computes no gradient of that.
    """

    name: str
    kind: str
    flops: float
    activation_bytes: float
    parameter_bytes: float
    calls: float
    first: bool = False

    @property
    def family(self) -> str:
        return family_of(self.kind)

    def scaled(self, factor: float) -> LayerWork:
        """The same layer with `factor` times as many samples per batch."""
        return replace(self, flops=self.flops * factor, activation_bytes=self.activation_bytes * factor)


@dataclass(frozen=True, slots=True)
class Network:
    """The work of a whole network in a training step."""

    name: str
    layers: tuple[LayerWork, ...]
    parameters: float
    tensors: int
    batch: float = math.nan

    def with_batch(self, batch: float) -> Network:
        """The same network with another batch size. Raises ValueError if its own is not known."""
        if not self.batch > 0:
            raise ValueError(f"the batch size of {self.name} is not known, so it cannot be scaled to {batch:g}")
        return replace(self, layers=tuple(layer.scaled(batch / self.batch) for layer in self.layers), batch=batch)


@dataclass(frozen=True, slots=True)
class Observed:
    """A recorded network with its times, in seconds per step.

    Args:
        forward, backward: by layer, NaN where there was none.
        optimizer: inside ``optimizer.step()``; outside: loss, and what is done between layers.
        step: a quiet unsampled step without data wait, evaluation and checkpoints; NaN if there were too few.
        machine: fingerprint; empty if the record has none.
    """

    network: Network
    forward: tuple[float, ...]
    backward: tuple[float, ...]
    optimizer: float
    outside: float
    step: float
    machine: str

    def times(self, phase: Pass) -> tuple[float, ...]:
        return self.forward if phase == "forward" else self.backward


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted seconds per step.

    Args:
        layers: forward and backward by layer.
        step: of the whole training step on the host, without data wait and evaluation; low, high: its interval.
        extrapolated: layers outside of what was recorded, or of a kind that never was; extrapolated_share: of `step`.
    """

    network: Network
    layers: tuple[tuple[float, float], ...]
    optimizer: float
    outside: float
    step: float
    low: float
    high: float
    extrapolated: tuple[str, ...]
    extrapolated_share: float


class CannotPredict(ValueError):
    """There is too little to learn from, or what is asked for lies too far from it; the message says which."""


def family_of(kind: str) -> str:
    """Layers of one family cost alike for alike work."""
    for family, marks in _FAMILIES.items():
        if any(mark in kind for mark in marks):
            return family
    return "elementwise"


_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "normalisation": ("Norm",),
    "convolution": ("Conv",),
    "recurrent": ("LSTM", "GRU", "RNN"),
    "attention": ("MultiheadAttention",),
    "linear": ("Linear",),
    "embedding": ("Embedding",),
    "pooling": ("Pool",),
}


# -- reading


def observe(reader: RecordReader) -> Observed | None:
    """The network of a record and its times; None where layer times or their work were not recorded."""
    facts, targets = reader.facts, reader.targets
    samples: dict[str, list[Array]] = {}
    quiet: list[float] = []
    for frame in reader.frames():
        for name in _READ:
            if name in frame.values:
                samples.setdefault(name, []).append(np.asarray(frame.values[name], np.float64))
        values = frame.values
        if "step.time" in values and "tile.span" not in values and frame.step > 50:
            aside = sum(float(values[name][0]) for name in ("step.evaluation", "step.checkpoint") if name in values)
            waited = float(values["step.data_wait_fraction"][0]) if "step.data_wait_fraction" in values else 0.0
            quiet.append(float(values["step.time"][0]) * (1 - waited) - aside)
    if "layer.flops" not in samples or "time.forward" not in samples:
        return None
    layers = _layers(targets, samples)
    forward, backward = (_by_layer(samples, f"time.{phase}", len(targets.layers)) for phase in PASSES)
    kept = [n for n, layer in enumerate(layers) if layer is not None and forward[n] > 0]
    sizes = [math.prod(shape) for shape in targets.param_shapes]
    batch = float(np.median(np.concatenate(samples["input.batch_size"]))) if "input.batch_size" in samples else math.nan
    network = Network(facts.name, tuple(layer for n in kept if (layer := layers[n]) is not None), float(sum(sizes)), len(sizes), batch)
    optimizer = _total(samples, "time.optimizer") + _total(samples, "tile.optimizer")
    outside = sum(_total(samples, name) for name in ("tile.loss", "tile.forward_other", "tile.backward_other", "tile.zero_grad"))
    machine = str((facts.facts.get("machine") or {}).get("fingerprint", ""))
    step = float(np.quantile(quiet, QUIET)) if len(quiet) >= 10 else math.nan
    return Observed(network, tuple(forward[kept]), tuple(backward[kept]), optimizer, outside, step, machine)


_READ = (
    "layer.flops", "layer.bytes", "layer.steps_in_row", "time.forward", "time.backward", "time.optimizer", "tile.optimizer",
    "tile.loss", "tile.forward_other", "tile.backward_other", "tile.zero_grad", "input.batch_size",
)  # fmt: skip


def _by_layer(samples: Mapping[str, list[Array]], name: str, size: int, fraction: float = QUIET) -> Array:
    """A quantile over the samples for each target, NaN where there are none; the first sample is warm-up."""
    rows = samples.get(name, [])
    rows = rows[1:] or rows
    table = np.full((max(1, len(rows)), size), np.nan)
    for index, row in enumerate(rows):
        table[index, : len(row)] = row
    known = ~np.isnan(table).all(axis=0)
    result = np.full(size, np.nan)
    if known.any():
        result[known] = np.nanquantile(table[:, known], fraction, axis=0)
    return result


def _total(samples: Mapping[str, list[Array]], name: str) -> float:
    rows = [float(np.nansum(row)) for row in samples.get(name, [])]
    return float(np.quantile(rows[1:] or rows, QUIET)) if rows else 0.0


def _layers(targets: Targets, samples: Mapping[str, list[Array]]) -> list[LayerWork | None]:
    size = len(targets.layers)
    flops, moved, calls = (_by_layer(samples, name, size, 0.5) for name in ("layer.flops", "layer.bytes", "layer.steps_in_row"))
    owned = np.zeros(size)
    for shape, layer in zip(targets.param_shapes, targets.param_layers, strict=True):
        if 0 <= layer < size:
            owned[layer] += 4.0 * math.prod(shape)
    return [
        None
        if math.isnan(moved[n])
        else LayerWork(
            targets.layers[n], targets.layer_kinds[n], float(flops[n]), max(0.0, float(moved[n] - owned[n])), float(owned[n]), float(calls[n]),
            first=targets.layer_depths[n] == 0,
        )
        for n in range(size)
    ]  # fmt: skip


# -- learning


@dataclass(frozen=True)
class CostModel:
    """What one family of layers costs in one pass."""

    costs: Array  # per call, operation, activation byte, parameter byte
    work: Array  # logarithms of the work that was seen, (layers, 3)
    residual: Array  # logarithm of measured over modelled time, (layers,)

    def seconds(self, layer: LayerWork, phase: Pass) -> float:
        plain = float(_features(layer, phase) @ self.costs)
        weight = np.exp(-0.5 * ((self.work - _log_work(layer)) ** 2).sum(axis=1) / BANDWIDTH**2)  # (layers,)
        return plain * math.exp(float(weight @ self.residual) / (float(weight.sum()) + 0.3))

    def covers(self, layer: LayerWork) -> bool:
        """Whether work like that of `layer` lies between what was recorded, with some reach."""
        work = _log_work(layer)
        reach = math.log(REACH)
        return bool((work >= self.work.min(axis=0) - reach).all() and (work <= self.work.max(axis=0) + reach).all())


def _features(layer: LayerWork, phase: Pass) -> Array:
    half = 0.5 if layer.first and phase == "backward" else 1.0
    flops = 0.0 if math.isnan(layer.flops) else layer.flops
    return np.array([layer.calls, half * flops, layer.activation_bytes, layer.parameter_bytes])


def _log_work(layer: LayerWork) -> Array:
    flops = 0.0 if math.isnan(layer.flops) else layer.flops
    return np.log1p([flops, layer.activation_bytes, layer.parameter_bytes])


def _fit(rows: Sequence[tuple[LayerWork, float]], phase: Pass) -> CostModel:
    features = np.array([_features(layer, phase) for layer, _ in rows])  # (layers, 4)
    times = np.array([time for _, time in rows])
    costs = _relative_costs(features, times)
    modelled = np.maximum(features @ costs, 1e-9)
    return CostModel(costs, np.array([_log_work(layer) for layer, _ in rows]), np.log(times / modelled))


def _relative_costs(features: Array, times: Array) -> Array:
    """Non-negative costs with the least squares of relative errors."""
    from scipy.optimize import nnls

    scale = np.maximum(features.max(axis=0), 1e-30)
    solution, _ = nnls(features / scale / times[:, None], np.ones(len(times)))
    return np.asarray(solution / scale, np.float64)


@dataclass(frozen=True)
class TimeModel:
    """Predicts layers and networks; made by :func:`learn`.

    Attributes:
        networks: how many recorded networks it has learnt from.
        error: of a whole step as a factor: nine in ten left-out networks were within it.
        layer_error: mean absolute relative error of a layer's time when its network was left out.
        step_error: likewise of the whole step.
    """

    families: Mapping[tuple[str, Pass], CostModel]
    optimizer: Array
    outside: Array
    networks: int
    machine: str
    error: float = math.nan
    layer_error: float = math.nan
    step_error: float = math.nan

    def layer_seconds(self, layer: LayerWork, phase: Pass) -> float:
        return self._model(layer, phase).seconds(layer, phase)

    def covers(self, layer: LayerWork) -> bool:
        """Whether layers of this family and about this much work have been recorded."""
        model = self.families.get((layer.family, "forward"))
        return model is not None and not math.isnan(layer.flops) and model.covers(layer)

    def _model(self, layer: LayerWork, phase: Pass) -> CostModel:
        return self.families.get((layer.family, phase)) or self.families["all", phase]

    def predict(self, network: Network, extrapolate: bool = False) -> Prediction:
        """The times of `network`.

        Raises:
            CannotPredict: more than a tenth of the time would be an extrapolation, and `extrapolate` is not set.
        """
        layers = tuple((self.layer_seconds(layer, "forward"), self.layer_seconds(layer, "backward")) for layer in network.layers)
        optimizer = float(_optimizer_features(network) @ self.optimizer)
        outside = float(_outside_features(network) @ self.outside)
        step = sum(map(sum, layers)) + optimizer + outside
        beyond = [n for n, layer in enumerate(network.layers) if not self.covers(layer)]
        share = sum(sum(layers[n]) for n in beyond) / step if step > 0 else 0.0
        names = tuple(network.layers[n].name for n in beyond)
        if share > TOLERATED and not extrapolate:
            raise CannotPredict(_refusal(network, self, beyond, share))
        factor = self.error * (1 + share)
        return Prediction(network, layers, optimizer, outside, step, step / factor, step * factor, names, share)


def _refusal(network: Network, model: TimeModel, beyond: Sequence[int], share: float) -> str:
    layers = [network.layers[n] for n in beyond]
    told = ", ".join(f"{layer.name} ({layer.kind}, {layer.flops:.2g} operations)" for layer in layers[:3])
    more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
    return (
        f"{100 * share:.0f} % of the predicted time of {network.name} are layers unlike any of the {model.networks} recorded networks: {told}{more}. "
        "Record a run with layers of about this size, or extrapolate knowingly"
    )


def _optimizer_features(network: Network) -> Array:
    return np.array([float(network.tensors), network.parameters])


def _outside_features(network: Network) -> Array:
    return np.array([float(len(network.layers)), sum(layer.activation_bytes for layer in network.layers)])


def learn(observed: Iterable[Observed], validate: bool = True) -> TimeModel:
    """A model of time from recorded networks on one machine.

    With `validate` every architecture (name of a run) is left out once, which gives the errors; that takes as many fits.

    Raises:
        CannotPredict: fewer than two networks, or networks from different machines.
    """
    known = list(observed)
    machines = {one.machine for one in known}
    if len(machines) > 1:
        raise CannotPredict(f"the runs are from {len(machines)} machines ({', '.join(sorted(machines))}): times of one say nothing about another")
    if len({one.network.name for one in known}) < 2:
        raise CannotPredict(f"a model of time needs recorded runs of at least two networks, got {len({one.network.name for one in known})}")
    model = _learn(known, machines.pop())
    return replace(model, **_left_out(known)) if validate else model


def _learn(observed: Sequence[Observed], machine: str) -> TimeModel:
    families: dict[tuple[str, Pass], CostModel] = {}
    for phase in PASSES:
        rows = [(layer, time) for one in observed for layer, time in zip(one.network.layers, one.times(phase), strict=True) if time > 0]
        families["all", phase] = _fit(rows, phase)
        for family in {layer.family for layer, _ in rows}:
            own = [row for row in rows if row[0].family == family]
            if len(own) >= ENOUGH_LAYERS:
                families[family, phase] = _fit(own, phase)
    return TimeModel(
        families,
        optimizer=_costs_of(observed, _optimizer_features, [one.optimizer for one in observed]),
        outside=_costs_of(observed, _outside_features, [one.outside for one in observed]),
        networks=len({one.network.name for one in observed}),
        machine=machine,
    )


def _costs_of(observed: Sequence[Observed], features: Callable[[Network], Array], times: Sequence[float]) -> Array:
    rows = [(features(one.network), time) for one, time in zip(observed, times, strict=True) if time > 0]
    if not rows:
        return np.zeros(2)
    return _relative_costs(np.array([row for row, _ in rows]), np.array([time for _, time in rows]))


def _left_out(observed: Sequence[Observed]) -> dict[str, Any]:
    """Errors on networks that the model had not seen: every architecture left out once."""
    steps: list[float] = []
    layers: list[float] = []
    for name in sorted({one.network.name for one in observed}):
        others = [one for one in observed if one.network.name != name]
        if not others:
            continue
        model = _learn(others, "")
        for one in observed:
            if one.network.name == name:
                predicted = [[model.layer_seconds(layer, phase) for phase in PASSES] for layer in one.network.layers]
                layers.extend(_layer_errors(one, predicted))
                steps.append(math.log(_whole(model, one, predicted) / truth(one)))
    return {
        "error": error_factor(steps),
        "layer_error": float(np.mean(layers)) if layers else math.nan,
        "step_error": float(np.mean([abs(math.exp(error) - 1) for error in steps])),
    }


def error_factor(errors: Sequence[float]) -> float:
    """The factor within which nine in ten predictions were, from their logarithmic errors (split conformal prediction)."""
    sizes = np.sort(np.abs(errors))
    rank = min(len(sizes) - 1, math.ceil((len(sizes) + 1) * CONFIDENCE) - 1)
    return math.exp(float(sizes[rank]))


def _whole(model: TimeModel, one: Observed, predicted: Sequence[Sequence[float]]) -> float:
    seen = sum(sum(pair) for pair in predicted)
    return seen + float(_optimizer_features(one.network) @ model.optimizer) + float(_outside_features(one.network) @ model.outside)


def _layer_errors(one: Observed, predicted: Sequence[Sequence[float]]) -> list[float]:
    """Relative errors of forward plus backward of the layers that have a hundredth of the step and more."""
    errors = []
    whole = truth(one)
    for (forward, backward), pair in zip(zip(one.forward, one.backward, strict=True), predicted, strict=True):
        measured = np.nansum([forward, backward])
        if measured > 0.01 * whole:
            guess = pair[0] + (0.0 if math.isnan(backward) else pair[1])
            errors.append(abs(guess / measured - 1))
    return errors


def truth(one: Observed) -> float:
    """The step as it was measured: quiet unsampled steps if there are enough, else the sum of its tiles."""
    if one.step > 0:
        return one.step
    return float(np.nansum(one.forward) + np.nansum(one.backward)) + one.optimizer + one.outside
