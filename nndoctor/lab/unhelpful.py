"""Layers and blocks that can go: each is bypassed or made constant in turn, and the loss says what it was good for.

As in the lesion study of Veit, Wilber and Belongie 2016, Residual Networks Behave Like Ensembles of Relatively Shallow
Networks (https://arxiv.org/abs/1605.06431), with paired errors and with what the removal saves.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nndoctor.examinations.patient import Batch
from nndoctor.examinations.trees import mapped, tensors
from nndoctor.lab.layout import lay_out_for_speed
from nndoctor.lab.patient import Patient, Subject, sample_count
from nndoctor.lab.progress import Progress, silent
from nndoctor.lab.results import Result
from nndoctor.lab.workbook import Workbook

Way: TypeAlias = Literal["bypass", "mean"]
Verdict: TypeAlias = Literal["can go", "needed", "undecided"]

FIRST_LOOK = 32
"""Samples of the first look; after it, and after each batch, layers whose absence clearly hurts are settled."""
CLEARLY = 3.0
"""Standard errors that make it clear on the first look; most layers of a good network are clear."""
REPLAY_BYTES = 1024**3
"""Memory that outputs on one chunk may take, so that what lies before a layer is not computed again for it."""
TIMED_SAMPLES = 8
TIMED_STEPS = 3
TIMED_SHARE = 0.02
"""Share of the forward pass below which the saving of a whole step is lost in its noise."""
MOST_TIMED = 5
MOST_TOGETHER = 6
"""Candidates, the largest first, that are timed and that are tried together; each costs a few passes."""


@dataclass(frozen=True)
class LayerEffect:
    """What a layer or block is good for.

    Args:
        name, kind: of the module, and its class.
        way: ``bypass`` (its input goes on as its output) or ``mean`` (its output is its mean over all samples),
            whichever hurts less.
        difference, error: loss without it minus loss with it, and the standard error of that, paired by sample.
        samples: that this is based on; fewer than there are where the first of them settled it.
        verdict: ``can go`` where the difference is below the margin by two errors, ``needed`` where it is above it by
            two, else ``undecided``.
        parameters, parameter_bytes: that would go.
        activation_bytes: outputs of its layers for one sample.
        forward_milliseconds, forward_share: time of its forward pass for `TIMED_SAMPLES` samples, and of the model's.
        step_share: measured share of forward and backward pass that is saved without it; None where it was not
            measured, because it cannot go or is too small for it.
    """

    name: str
    kind: str
    way: Way
    difference: float
    error: float
    samples: int
    verdict: Verdict
    parameters: int
    parameter_bytes: int
    activation_bytes: int
    forward_milliseconds: float
    forward_share: float
    step_share: float | None = None

    def __str__(self) -> str:
        judged = {"can go": "can go", "needed": "is needed", "undecided": "may go or not"}[self.verdict]
        saved = "" if self.step_share is None else f", {-100 * self.step_share:+.0f} % step time"
        return f"{self.name} {judged}: {self.difference:+.4f} ± {self.error:.4f} loss{saved}, -{self.parameters:,} parameters"


@dataclass(frozen=True)
class JointRemoval:
    """Several that can go at once, found greedily; each alone may be harmless where all together are not."""

    names: tuple[str, ...]
    difference: float
    error: float
    parameters: int
    step_share: float


@dataclass(frozen=True)
class UnhelpfulLayers(Result):
    """What :func:`unhelpful_layers` finds.

    Args:
        loss, error: mean over all samples with its standard error.
        margin: difference in loss that counts as none.
        samples, parameters: in the batches, and in the model.
        effects: every layer and block that was looked at, in order of execution.
        together: what can go at once; None where nothing can.
        not_examined: name and reason.
        seconds: taken.
    """

    loss: float
    error: float
    margin: float
    samples: int
    parameters: int
    effects: tuple[LayerEffect, ...]
    together: JointRemoval | None
    not_examined: tuple[tuple[str, str], ...]
    seconds: float

    @property
    def can_go(self) -> tuple[LayerEffect, ...]:
        """Those that can go one at a time, the most parameters first."""
        return tuple(sorted((e for e in self.effects if e.verdict == "can go"), key=lambda e: -e.parameters))


def unhelpful_layers(
    patient: Patient,
    *,
    margin: float | None = None,
    work: Path | str | None = None,
    progress: Progress = silent,
) -> UnhelpfulLayers:
    """Which layers and blocks the loss on the patient's batches does not need; use batches held out from training.

    Every module with parameters that the forward pass calls is bypassed, where its output looks like its input, and made
    constant; the better of both counts. A layer may be needed for training all the same: train again without it before
    believing.

    Args:
        margin: difference in loss that counts as none. By default the standard error of the loss itself: what these
            samples cannot tell from no change (the one-standard-error rule of Breiman et al. 1984).
        work: folder for finished pieces; the same call goes on from them after it was killed.
    """
    started = time.perf_counter()
    book = Workbook.of(work, "unhelpful-layers", patient, margin)
    with patient.examined() as subject, torch.no_grad(), plain_attention():
        lay_out_for_speed(subject)
        base = _Losses(subject)
        error = base.error()
        limit = error if margin is None else margin
        seen = _observe(subject, progress)
        looks = _look_at_all(subject, base, seen, limit, book, progress)
        effects = [_effect(layer, looks[name], limit, seen) for name, layer in seen.items() if name in looks]
        failures = [(name, "its outputs vary in shape from batch to batch, and from its inputs") for name in seen if name not in looks]
        effects = _with_times(subject, seen, effects, progress)
        together = _together(subject, base, seen, effects, limit)
        return UnhelpfulLayers(
            loss=base.mean(),
            error=error,
            margin=limit,
            samples=patient.samples,
            parameters=sum(p.numel() for p in subject.model.parameters()),
            effects=tuple(effects),
            together=together,
            not_examined=tuple(failures),
            seconds=time.perf_counter() - started,
        )


@contextmanager
def plain_attention() -> Iterator[None]:
    """Transformer layers call their parts one by one; their fused version would not notice that one is missing."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@dataclass
class _Layer:
    """A module with parameters as the forward pass calls it.

    Args:
        bypassable: whether every call returns a tensor like its first input.
        means: shapes and sums over all samples of its outputs, for each call in a forward pass.
        calls: in the present forward pass.
        varies: whether there is no mean output: shapes or the number of calls differ from batch to batch.
    """

    name: str
    module: nn.Module
    bypassable: bool = True
    means: list[Any] = field(default_factory=list)
    calls: int = 0
    varies: bool = False

    @property
    def ways(self) -> tuple[Way, ...]:
        return (*(("bypass",) if self.bypassable else ()), *(() if self.varies else ("mean",)))

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.module.parameters())


class _Losses:
    """Losses of single samples with nothing missing, or of batches where samples cannot be told apart."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self.batches = subject.batches
        first = subject.batches[0]
        self.by_sample = first.size is not None and self._adds_up(first)
        self.values = [self.of(batch) for batch in self.batches]

    def of(self, batch: Batch) -> NDArray[np.float64]:
        """Loss of each sample of `batch`, as the model is now (samples,), or of the batch (1,)."""
        outputs = self._subject.outputs(batch)
        if not self.by_sample:
            return np.asarray([float(self._subject.loss(outputs, batch))])
        return self._alone(outputs, batch)

    def chunks(self) -> Iterator[tuple[Batch, NDArray[np.float64]]]:
        """What is looked at together, with the losses with nothing missing: a few samples first, then batch by batch."""
        for number, (batch, values) in enumerate(zip(self.batches, self.values, strict=True)):
            size = sample_count(batch)
            if number or not self.by_sample or size <= FIRST_LOOK:
                yield batch, values
            else:
                yield batch.part(0, FIRST_LOOK), values[:FIRST_LOOK]
                yield batch.part(FIRST_LOOK, size - FIRST_LOOK), values[FIRST_LOOK:]

    def mean(self) -> float:
        sizes = [sample_count(batch) for batch in self.batches]
        return float(np.average([values.mean() for values in self.values], weights=sizes))

    def error(self) -> float:
        """Standard error of the mean loss; NaN where there is a single value."""
        return _error(np.concatenate(self.values))

    def _adds_up(self, batch: Batch) -> bool:
        outputs = self._subject.outputs(batch)
        if any(t.dim() <= batch.axis or t.shape[batch.axis] != batch.size for t in tensors(outputs)):
            return False
        whole = float(self._subject.loss(outputs, batch))
        try:
            return abs(float(self._alone(outputs, batch).mean()) - whole) <= 1e-4 * abs(whole) + 1e-6
        except (RuntimeError, ValueError, IndexError, TypeError):
            return False

    def _alone(self, outputs: Any, batch: Batch) -> NDArray[np.float64]:
        assert batch.size is not None
        losses = []
        for index in range(batch.size):
            one = mapped(lambda t, i=index: t.narrow(batch.axis, i, 1), outputs)  # type: ignore[misc]
            losses.append(self._subject.loss(one, batch.part(index, 1)))
        return torch.stack(losses).double().cpu().numpy()


@dataclass
class _Replay:
    """Outputs on one chunk, call by call, and when modules began and ended; empty where replaying is not safe."""

    modules: dict[str, nn.Module]
    outputs: dict[str, list[Any]] = field(default_factory=dict)
    began: dict[str, int] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def before(self, name: str) -> Iterator[None]:
        """Modules that were done before `name` began hand out what they made then, without computing it."""
        done = [other for other in self.outputs if self.ended[other] < self.began[name]]
        outermost = [other for other in done if not any(other.startswith(f"{outer}.") for outer in done)]
        for other in outermost:
            self.modules[other].forward = _Repeated(self.outputs[other])
        try:
            yield
        finally:
            for other in outermost:
                del self.modules[other].forward

    @property
    def bytes(self) -> int:
        return sum(t.nbytes for calls in self.outputs.values() for output in calls for t in tensors(output))


class _Repeated:
    """A forward pass that hands out copies of known outputs, call after call; what follows may write into them."""

    def __init__(self, outputs: list[Any]) -> None:
        self._outputs = outputs
        self._calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._calls += 1
        return mapped(Tensor.clone, self._outputs[(self._calls - 1) % len(self._outputs)])


def _record(subject: Subject, base: _Losses, seen: Mapping[str, _Layer], chunk: Batch, known: NDArray[np.float64]) -> _Replay:
    """What modules make of a chunk; nothing if that needs much memory, or if replaying it changes a loss."""
    replay = _Replay({name: layer.module for name, layer in seen.items()})
    clock = iter(range(10**9))

    def begin(name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: Any) -> None:
            replay.began.setdefault(name, next(clock))

        return note

    def end(name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: Any, output: Any) -> None:
            replay.ended[name] = next(clock)
            if replay.bytes < REPLAY_BYTES:
                replay.outputs.setdefault(name, []).append(mapped(Tensor.clone, output))

        return note

    with ExitStack() as hooks:
        for name, layer in seen.items():
            hooks.callback(layer.module.register_forward_pre_hook(begin(name)).remove)
            hooks.callback(layer.module.register_forward_hook(end(name)).remove)
        subject.outputs(chunk)
    last = max(replay.began, key=lambda name: replay.began[name])
    with replay.before(last):
        is_safe = replay.bytes < REPLAY_BYTES and np.allclose(base.of(chunk), known, rtol=1e-5, atol=1e-7)
    if not is_safe:
        replay.outputs.clear()
    return replay


def _observe(subject: Subject, progress: Progress) -> dict[str, _Layer]:
    """Every module with parameters that is called, in order of execution, with its mean outputs and its time."""
    found: dict[str, _Layer] = {}
    with ExitStack() as hooks:
        for name, module in subject.model.named_modules():
            if name and next(module.parameters(), None) is not None:
                hooks.callback(module.register_forward_hook(_noting(found, name), with_kwargs=True).remove)
        for number, batch in enumerate(subject.batches):
            for layer in found.values():
                layer.calls = 0
            subject.outputs(batch)
            for layer in found.values():
                layer.varies = layer.varies or layer.calls != len(layer.means)
            progress("mean outputs", number + 1, len(subject.batches))
    return found


def _noting(found: dict[str, _Layer], name: str) -> Callable[..., None]:
    """A hook that keeps the sum of the outputs over the samples, call by call."""

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        layer = found.setdefault(name, _Layer(name, module))
        layer.bypassable = layer.bypassable and _is_like(output, args, kwargs)
        call = layer.calls
        layer.calls += 1
        held = tensors(output)
        if not held or any(t.dim() == 0 or not t.is_floating_point() for t in held):
            layer.varies = True
            return
        sums = mapped(lambda t: torch.cat((t.sum(0, keepdim=True).flatten(), t.new_tensor([t.shape[0]]))), output)
        shapes = mapped(lambda t: tuple(t.shape[1:]), output)
        if call == len(layer.means):
            layer.means.append((shapes, sums))
        elif layer.means[call][0] != shapes:
            layer.varies = True
        else:
            for total, more in zip(tensors(layer.means[call][1]), tensors(sums), strict=True):
                total += more

    return note


def _is_like(output: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    given = _first(args, kwargs)
    return isinstance(output, Tensor) and given is not None and output.shape == given.shape and output.dtype == given.dtype


def _first(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    value = args[0] if args else next(iter(kwargs.values()), None)
    return value if isinstance(value, Tensor) else None


@contextmanager
def without(layers: Sequence[tuple[_Layer, Way]]) -> Iterator[None]:
    """The subject's copy with these layers bypassed or constant; they cost no time then."""
    changed = []
    for layer, way in layers:
        changed.append(layer.module)
        layer.module.forward = _passing if way == "bypass" else _Constant(layer)
    try:
        yield
    finally:
        for module in changed:
            del module.forward


def _passing(*args: Any, **kwargs: Any) -> Any:
    """The first input; a copy, since what follows may write into it while somebody else still needs it."""
    given = _first(args, kwargs)
    return None if given is None else given.clone()


class _Constant:
    """A forward pass that returns the mean output for as many samples as it was given, call after call."""

    def __init__(self, layer: _Layer) -> None:
        self._means = [_mean_of(shapes, sums) for shapes, sums in layer.means]
        self._calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = _first(args, kwargs)
        mean = self._means[self._calls % len(self._means)]
        self._calls += 1
        count = 1 if given is None else given.shape[0]
        return mapped(lambda t: t.expand(count, *t.shape).clone(), mean)


def _mean_of(shapes: Any, sums: Any) -> Any:
    """Mean outputs, in the same tree as the sums, each (features...)."""
    flat_shapes = iter(_leaves(shapes))
    return mapped(lambda total: (total[:-1] / total[-1]).reshape(next(flat_shapes)), sums)


def _leaves(tree: Any) -> Iterator[tuple[int, ...]]:
    if isinstance(tree, tuple) and all(isinstance(size, int) for size in tree):
        yield tree
    elif isinstance(tree, Mapping):
        for item in tree.values():
            yield from _leaves(item)
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            yield from _leaves(item)


@dataclass
class _Look:
    """What is known of one layer so far."""

    way: Way
    differences: NDArray[np.float64]

    @property
    def mean(self) -> float:
        return float(self.differences.mean())

    @property
    def error(self) -> float:
        return _error(self.differences)

    def settled(self, limit: float) -> bool:
        """Whether it is clear already that the layer is needed."""
        return self.mean - CLEARLY * self.error > limit


def _look_at_all(
    subject: Subject, base: _Losses, seen: Mapping[str, _Layer], limit: float, book: Workbook, progress: Progress
) -> dict[str, _Look]:
    """Chunk by chunk what the loss of each sample gains without each layer; those that are settled are looked at no more."""
    looks: dict[str, _Look] = {}
    active = {name: layer for name, layer in seen.items() if layer.ways}
    chunks = list(base.chunks())
    done = 0
    for number, (chunk, known) in enumerate(chunks):
        keys = {name: f"{name}@{number}" for name in active}
        replay = None if all(key in book for key in keys.values()) else _record(subject, base, seen, chunk, known)
        for position, (name, layer) in enumerate(active.items(), 1):
            ways = (looks[name].way,) if name in looks else layer.ways
            way, differences = book.done(keys[name], partial(_look, base, layer, ways, chunk, known, replay))
            before = looks[name].differences if name in looks else np.zeros(0)
            looks[name] = _Look(way, np.concatenate((before, np.asarray(differences))))
            done += 1
            progress("layers", done, done + len(active) * (len(chunks) - number) - position)
        active = {name: layer for name, layer in active.items() if not looks[name].settled(limit)}
    return looks


def _look(
    base: _Losses, layer: _Layer, ways: Sequence[Way], chunk: Batch, known: NDArray[np.float64], replay: _Replay | None
) -> list[Any]:
    """The way that hurts less on one chunk, and the difference that it makes to the loss of each sample."""
    found: list[tuple[Way, NDArray[np.float64]]] = []
    for way in ways:
        with nullcontext() if replay is None else replay.before(layer.name), without([(layer, way)]):
            found.append((way, _without_overflow(base.of(chunk) - known)))
    way, differences = min(found, key=lambda look: float(look[1].mean()))
    return [way, differences.tolist()]


def _difference(base: _Losses, layers: Sequence[tuple[_Layer, Way]], limit: float) -> tuple[float, float, int]:
    """Mean and error of the paired difference, and its number of samples: all, or those after which it is clearly too much."""
    parts: list[NDArray[np.float64]] = []
    for batch, known in zip(base.batches, base.values, strict=True):
        with without(layers):
            parts.append(_without_overflow(base.of(batch) - known))
        differences = np.concatenate(parts)
        mean, error = float(differences.mean()), _error(differences)
        if mean - CLEARLY * error > limit:
            break
    return mean, error, len(differences)


def _without_overflow(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(differences), differences, 1e30)


def _error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def _judged(difference: float, error: float, limit: float) -> Verdict:
    if difference + 2 * error <= limit:
        return "can go"
    return "needed" if difference - 2 * error > limit else "undecided"


def _effect(layer: _Layer, look: _Look, limit: float, seen: Mapping[str, _Layer]) -> LayerEffect:
    inside = [other for name, other in seen.items() if name == layer.name or name.startswith(layer.name + ".")]
    leaves = [other for other in inside if not any(True for _ in other.module.children())]
    elements = sum(math.prod(shape) for other in leaves for shapes, _ in other.means for shape in _leaves(shapes))
    size = next(layer.module.parameters()).element_size()
    return LayerEffect(
        name=layer.name,
        kind=type(layer.module).__name__,
        way=look.way,
        difference=look.mean,
        error=look.error,
        samples=len(look.differences),
        verdict=_judged(look.mean, look.error, limit),
        parameters=layer.parameters,
        parameter_bytes=sum(p.numel() * p.element_size() for p in layer.module.parameters()),
        activation_bytes=elements * size,
        forward_milliseconds=math.nan,
        forward_share=math.nan,
    )


def _with_times(
    subject: Subject, seen: Mapping[str, _Layer], effects: Sequence[LayerEffect], progress: Progress
) -> list[LayerEffect]:
    """The effects with forward times of all, and the share of a step that those which can go would save."""
    part = subject.batches[0].first(TIMED_SAMPLES)
    forward, times = _forward_times(subject, part, seen)
    large = sorted((e for e in effects if e.verdict == "can go"), key=lambda e: -times[e.name])[:MOST_TIMED]
    worth = {effect.name for effect in large if times[effect.name] >= TIMED_SHARE * forward}
    timed = []
    for number, effect in enumerate(effects):
        share = None
        if effect.name in worth:
            share = _step_share(subject, part, [(seen[effect.name], effect.way)])
        seconds = times[effect.name]
        timed.append(_replaced(effect, forward_milliseconds=1000 * seconds, forward_share=seconds / forward, step_share=share))
        progress("times", number + 1, len(effects))
    return timed


def _replaced(effect: LayerEffect, **changes: Any) -> LayerEffect:
    return LayerEffect(**{**vars(effect), **changes})


def _forward_times(subject: Subject, batch: Batch, seen: Mapping[str, _Layer]) -> tuple[float, dict[str, float]]:
    """Seconds of the forward pass, and of each layer in it; the fastest of some, the first does not count."""
    starts: dict[str, float] = {}
    spent: dict[str, float] = {}
    best = dict.fromkeys(seen, math.inf)
    fastest = math.inf

    def begin(name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: Any) -> None:
            starts[name] = _now(batch)

        return note

    def end(name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: Any, output: Any) -> None:
            spent[name] = spent.get(name, 0.0) + _now(batch) - starts[name]

        return note

    with ExitStack() as hooks:
        for name, layer in seen.items():
            hooks.callback(layer.module.register_forward_pre_hook(begin(name)).remove)
            hooks.callback(layer.module.register_forward_hook(end(name)).remove)
        for attempt in range(TIMED_STEPS + 1):
            spent.clear()
            started = _now(batch)
            subject.outputs(batch)
            if attempt:
                fastest = min(fastest, _now(batch) - started)
                best = {name: min(best[name], spent.get(name, math.inf)) for name in best}
    return fastest, best


def _step_share(subject: Subject, batch: Batch, layers: Sequence[tuple[_Layer, Way]]) -> float:
    """Median share of forward and backward pass that is saved, with and without taking turns."""
    ratios = []
    for attempt in range(TIMED_STEPS + 1):
        whole = _step_seconds(subject, batch)
        with without(layers):
            shorter = _step_seconds(subject, batch)
        if attempt:
            ratios.append(1.0 - shorter / whole)
    return statistics.median(ratios)


def _step_seconds(subject: Subject, batch: Batch) -> float:
    parameters = list(subject.parameters().values())
    with torch.enable_grad():
        started = _now(batch)
        loss = subject.batch_loss(batch)
        if loss.requires_grad:
            torch.autograd.grad(loss, parameters, allow_unused=True)
        return _now(batch) - started


def _now(batch: Batch) -> float:
    device = tensors((batch.args, batch.kwargs))[0].device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _together(
    subject: Subject, base: _Losses, seen: Mapping[str, _Layer], effects: Sequence[LayerEffect], limit: float
) -> JointRemoval | None:
    """What can go at once: the largest first, each kept out where the loss still allows it."""
    gone: list[LayerEffect] = []
    result: tuple[float, float, int] = (0.0, 0.0, 0)
    candidates = sorted((e for e in effects if e.verdict == "can go"), key=lambda e: (-e.parameters, e.name))
    attempts = 0
    for effect in candidates:
        if attempts == MOST_TOGETHER:
            break
        if any(effect.name.startswith(other.name + ".") for other in gone):
            continue
        attempts += 1
        outer = [other for other in gone if not other.name.startswith(effect.name + ".")]
        attempt = _difference(base, [(seen[e.name], e.way) for e in (*outer, effect)], limit)
        if _judged(attempt[0], attempt[1], limit) == "can go":
            gone, result = [*outer, effect], attempt
    if not gone:
        return None
    layers = [(seen[e.name], e.way) for e in gone]
    share = _step_share(subject, subject.batches[0].first(TIMED_SAMPLES), layers)
    return JointRemoval(tuple(e.name for e in gone), result[0], result[1], sum(e.parameters for e in gone), share)
