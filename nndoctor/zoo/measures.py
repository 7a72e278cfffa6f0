"""Measurements inside a training loop, layer by layer, on every so many steps: the metrics of ikkuna, corrected.

Definitions after Diederichsen, *Live introspection for neural network training*, table 2.3.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nndoctor.zoo.writers import Writer

TOPICS = (
    "weights",
    "biases",
    "weight_gradients",
    "bias_gradients",
    "weight_updates",
    "bias_updates",
    "activations",
    "layer_gradients",
)
"""What can be looked at in every layer. Weights and biases are those before the step, updates what that same step made of them."""


@dataclass
class Sample:
    """One step: the tensors of every topic that is there, by layer."""

    step: int
    epoch: int
    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def of(self, topic: str) -> Mapping[str, Tensor]:
        return self.tensors.get(topic, {})


def layers_at(model: nn.Module, depth: int = -1) -> dict[str, nn.Module]:
    """The modules to look at: leaves, or what lies `depth` levels below the root if that comes first.

    >>> list(layers_at(nn.Sequential(nn.Sequential(nn.Linear(1, 1), nn.ReLU()), nn.Linear(1, 1)), depth=1))
    ['0', '1']
    """
    found: dict[str, nn.Module] = {}

    def walk(module: nn.Module, name: str, level: int) -> None:
        children = list(module.named_children())
        if not children or level == depth:
            found[name or type(module).__name__] = module
            return
        for child, inner in children:
            walk(inner, f"{name}.{child}" if name else child, level + 1)

    walk(model, "", 0)
    return found


class Tap:
    """Takes the tensors of every layer out of a training loop, by hooks, on every `every`-th step.

    Args:
        depth: see :func:`layers_at`.
        kinds: look at layers of these classes and their subclasses only; None: all.
        every: steps between two samples; the first step is one.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        depth: int = -1,
        kinds: tuple[type[nn.Module], ...] | None = None,
        every: int = 1,
    ) -> None:
        chosen = layers_at(model, depth)
        self.layers = {name: m for name, m in chosen.items() if kinds is None or isinstance(m, kinds)}
        self._model = model
        self.every = every
        self.epoch = 0
        self._step = 0
        self._sample: Sample | None = None
        self._listeners: list[Callable[[Sample], None]] = []
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
            model.register_forward_pre_hook(
                lambda *seen: self._begin()
            ),  # a bound method would be copied with the model
        ]
        for name, module in self.layers.items():
            self._handles.append(module.register_forward_hook(self._reader(name)))

    def listen(self, listener: Callable[[Sample], None]) -> None:
        """Call `listener` after every step that was sampled."""
        self._listeners.append(listener)

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()

    @property
    def step(self) -> int:
        """Optimizer steps so far."""
        return self._step

    def _begin(self) -> None:
        if self._sample is None and self._model.training and torch.is_grad_enabled() and self._step % self.every == 0:
            self._sample = Sample(self._step, self.epoch)

    def _reader(self, name: str) -> Callable[..., None]:
        def read(module: nn.Module, args: Any, output: Any) -> None:
            sample = self._sample
            if sample is None or not module.training or not isinstance(output, Tensor):
                return
            sample.tensors.setdefault("activations", {})[name] = output.detach()
            if output.requires_grad:
                output.register_hook(  # type: ignore[no-untyped-call]
                    lambda gradient: _keep(sample, "layer_gradients", name, gradient)
                )

        return read

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._sample is None:
            return
        for name, module in self.layers.items():
            for topic, parameter in _own_parameters(module):
                _keep(self._sample, "weights" if topic == "weight" else "biases", name, parameter.detach().clone())
                if parameter.grad is not None:
                    _keep(self._sample, f"{topic}_gradients", name, parameter.grad.detach().clone())

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        sample, self._sample = self._sample, None
        self._step += 1
        if sample is None:
            return
        for name, module in self.layers.items():
            for topic, parameter in _own_parameters(module):
                before = sample.of("weights" if topic == "weight" else "biases").get(name)
                if before is not None:
                    _keep(sample, f"{topic}_updates", name, parameter.detach() - before)
        for listener in self._listeners:
            listener(sample)


class Statistic:
    """Writes one number per layer and topic: ``{topic}_{name}/{layer}``."""

    def __init__(self, writer: Writer, name: str, function: Callable[[Tensor], float], topics: Iterable[str]) -> None:
        self._writer, self._name, self._function = writer, name, function
        self._topics = checked_topics(topics)

    def __call__(self, sample: Sample) -> None:
        for topic in self._topics:
            for layer, tensor in sample.of(topic).items():
                self._writer.add_data(f"{topic}_{self._name}/{layer}", self._function(tensor), sample.step)


class Ratio:
    """Writes ``|first| / |second|`` per layer, averaged over the last samples: ``{first}_{second}_ratio/{layer}``.

    A layer whose second tensor is zero has no ratio on that step.
    """

    def __init__(self, writer: Writer, first: str, second: str, average: int = 1) -> None:
        checked_topics((first, second))
        self._writer, self._pair, self._average = writer, (first, second), average
        self._recent: dict[str, deque[float]] = {}

    def __call__(self, sample: Sample) -> None:
        first, second = (sample.of(topic) for topic in self._pair)
        for layer in first.keys() & second.keys():
            length = norm(second[layer])
            if length > 0:
                recent = self._recent.setdefault(layer, deque(maxlen=self._average))
                recent.append(norm(first[layer]) / length)
                self._writer.add_data(
                    f"{self._pair[0]}_{self._pair[1]}_ratio/{layer}", sum(recent) / len(recent), sample.step
                )


class SpectralNorm:
    """Writes the largest singular value of each tensor as a matrix (first dimension, rest), by power iteration that goes on from sample to sample."""

    def __init__(self, writer: Writer, topics: Iterable[str] = ("weights",), iterations: int = 3) -> None:
        self._writer, self._topics, self._iterations = writer, checked_topics(topics), iterations
        self._vectors: dict[tuple[str, str], Tensor] = {}

    def __call__(self, sample: Sample) -> None:
        for topic in self._topics:
            for layer, tensor in sample.of(topic).items():
                if tensor.dim() > 1:
                    self._writer.add_data(
                        f"{topic}_spectral_norm/{layer}", self.estimate(topic, layer, tensor), sample.step
                    )

    def estimate(self, topic: str, layer: str, tensor: Tensor) -> float:
        matrix = tensor.flatten(1).float()  # (rows, columns)
        left = self._vectors.get((topic, layer))
        if left is None or len(left) != len(matrix):
            left = torch.randn(len(matrix), generator=torch.Generator().manual_seed(0)).to(matrix)  # (rows,)
        for _ in range(self._iterations):
            right = nn.functional.normalize(matrix.T @ left, dim=0)  # (columns,)
            left = matrix @ right
        self._vectors[topic, layer] = nn.functional.normalize(left, dim=0)
        return float(left.norm())


class Histogram:
    """Hands every tensor of the topics to the writer's histogram, as ``{topic}/{layer}``."""

    def __init__(self, writer: Writer, topics: Iterable[str]) -> None:
        self._writer, self._topics = writer, checked_topics(topics)

    def __call__(self, sample: Sample) -> None:
        for topic in self._topics:
            for layer, tensor in sample.of(topic).items():
                self._writer.add_histogram(f"{topic}/{layer}", tensor, sample.step)


def variance(tensor: Tensor) -> float:
    """Unbiased variance over all elements; 0 for a single one."""
    return float(tensor.float().var()) if tensor.numel() > 1 else 0.0


def norm(tensor: Tensor, order: float = 2) -> float:
    """``(sum |x| ** order) ** (1 / order)`` over all elements."""
    return float(torch.linalg.vector_norm(tensor.float(), order))


def condition_number(tensor: Tensor) -> float:
    """Largest over smallest singular value of the tensor as a matrix (first dimension, rest); infinite for a singular one."""
    values = torch.linalg.svdvals(tensor.flatten(1).float())
    return float(values[0] / values[-1])


def checked_topics(topics: Iterable[str]) -> tuple[str, ...]:
    """`topics`, if there are all of them. Raises ValueError with those there are."""
    wanted: Sequence[str] = tuple(topics)
    for topic in wanted:
        if topic not in TOPICS:
            raise ValueError(f"no topic is called {topic!r}; there are {', '.join(TOPICS)}")
    return tuple(wanted)


def _own_parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    found = ((topic, getattr(module, topic, None)) for topic in ("weight", "bias"))
    return [(topic, parameter) for topic, parameter in found if isinstance(parameter, nn.Parameter)]


def _keep(sample: Sample, topic: str, layer: str, tensor: Tensor) -> None:
    sample.tensors.setdefault(topic, {})[layer] = tensor.detach()
