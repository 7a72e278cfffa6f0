"""What the graph of the first steps tells about the layers themselves: what lies between them, and what is used.

The structure of a net hardly changes, so it is read in a few of the first sampled steps and never again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from nndoctor.discovery import DROPOUTS, NORMALISATIONS, ModelIndex
from nndoctor.probes.base import Measured
from nndoctor.probes.forward import HookSet, Place, in_backward, is_transformed, places
from nndoctor.probes.functional import activation_of
from nndoctor.probes.nodes import SHAPE_ONLY, children, name_of, saved, saved_tensor, shape_of, skip_shape_only

LOOKS = 5
"""Sampled steps in which the structure is read, from the second one on."""

LARGEST_WALK = 50_000
LINEAR = frozenset({"AddmmBackward0", "MmBackward0", "ConvolutionBackward0", "LinearBackward0"})
KINDS = frozenset({"Linear", "Conv1d", "Conv2d", "Conv3d"})
DROPOUT = frozenset({"NativeDropoutBackward0", "FusedDropoutBackward0"})
SOFTMAX = frozenset({"SoftmaxBackward0", "SafeSoftmaxBackward0"})
MASK_ELEMENTS = 4096
NAN = float("nan")

DIRECT, DOUBTFUL = 1.0, 0.5
"""Values of ``layer.linear_into``: nothing lies in between; nothing does, and that may be meant so."""


@dataclass(frozen=True)
class Linear:
    """One call of a linear layer or convolution in the graph.

    Args:
        node: of the graph.
        layer: its number; -1 where its weight is no parameter of the model's own (weight normalisation).
        weight: the weight.
        biased: it adds a bias.
        source: the node that made its input; None where the input needs no gradient.
    """

    node: Any
    layer: int
    weight: torch.Tensor
    biased: bool
    source: Any

    @property
    def width(self) -> int:
        return self.weight.shape[0]

    @property
    def inputs(self) -> int:
        """Values that go into one output: input features, or channels times the size of the kernel."""
        return math.prod(self.weight.shape[1:])

    @property
    def factorised(self) -> bool:
        """Whether it is made to be one of several factors: grouped, one by one, long and thin, in patches, or upsampling."""
        kernel = tuple(self.weight.shape[2:])
        if not kernel:
            return False
        groups, transposed, stride = (saved(self.node, f"_saved_{name}") for name in ("groups", "transposed", "stride"))
        patches = tuple(stride or ()) == kernel
        return bool(groups != 1 or transposed or len(set(kernel)) > 1 or kernel[0] == 1 or patches)


@dataclass(frozen=True)
class Graph:
    """Every node that a loss or an output reaches.

    Args:
        nodes: by identity, which holds as long as they are kept here.
        readers: the nodes that read the result of each.
    """

    nodes: dict[int, Any]
    readers: dict[int, list[Any]]

    def single_use(self, node: Any) -> bool:
        return len(self.readers.get(id(node), ())) == 1

    def linears(self, index: ModelIndex) -> Iterator[Linear]:
        for node in self.nodes.values():
            if name_of(node) in LINEAR:
                found = linear_call(node, index)
                if found is not None:
                    yield found


def read_graph(starts: list[Any]) -> Graph:
    """Walk from `starts` over the whole graph; reads no data."""
    nodes: dict[int, Any] = {}
    readers: dict[int, list[Any]] = {}
    waiting = list(starts)
    while waiting and len(nodes) < LARGEST_WALK:
        node = waiting.pop()
        if id(node) in nodes:
            continue
        nodes[id(node)] = node
        for child in children(node):
            readers.setdefault(id(child), []).append(node)
            waiting.append(child)
    return Graph(nodes, readers)


def linear_call(node: Any, index: ModelIndex) -> Linear | None:
    """What `node` computes if it is a linear map of one input by a parameter of the model."""
    weight: torch.Tensor | None = None
    layer, biased, sources = -1, False, []
    for child in children(node):
        leaf = getattr(skip_shape_only(child), "variable", None)
        if leaf is None or id(leaf) not in index.param_numbers:
            sources.append(child)
        elif leaf.dim() > 1:
            weight, layer = leaf, index.param_layers[index.param_numbers[id(leaf)]]
        else:
            biased = True
    return Linear(node, layer, weight, biased, sources[0] if sources else None) if weight is not None and len(sources) < 2 else None


def only_scales(node: Any) -> bool:
    """Whether `node` is a dropout: it multiplies by nought or one constant."""
    if name_of(node) in DROPOUT:
        return True
    if name_of(node) != "MulBackward0" or len(list(children(node))) != 1:
        return False
    mask = saved_tensor(node, "_saved_other")
    if mask is None or mask.device.type != "cpu" or tuple(mask.shape) != shape_of(node):
        return False  # on accelerators dropout is an operation of its own
    some = mask.reshape(-1)[:MASK_ELEMENTS]
    return bool(((some == 0) | (some == some.amax())).all())


def linear_before(upper: Linear, graph: Graph, calls: Mapping[int, Linear]) -> Linear | None:
    """The linear layer whose output goes into `upper` and nowhere else, with nothing in between that bends it."""
    node = upper.source
    while node is not None and graph.single_use(node):
        if id(node) in calls:
            return calls[id(node)]
        if name_of(node) not in SHAPE_ONLY and not only_scales(node):
            return None
        node = next(children(node), None)
    return None


def linear_pairs(graph: Graph, index: ModelIndex) -> dict[int, float]:
    """For each linear layer and convolution in the graph, whether the next one follows immediately.

    1 if so, 0.5 if it may be meant so: a low rank in between, factors of a convolution, no bias in the first, or an
    embedding of full width right before the last layer. 0 if something lies in between.
    """
    calls = {id(call.node): call for call in graph.linears(index) if index.layer_kinds[call.layer] in KINDS}
    below = {number: linear_before(call, graph, calls) for number, call in calls.items()}
    fed = {id(lower.node) for lower in below.values() if lower is not None}
    found = {call.layer: 0.0 for call in calls.values()}
    for number, lower in below.items():
        if lower is None or lower.layer == calls[number].layer:
            continue
        upper = calls[number]
        third = below[id(lower.node)]
        whole_net = third is None and lower.source is None
        last_two = number not in fed and third is None and not whole_net and _is_last(upper, graph)
        low_rank = lower.width < min(lower.inputs, upper.width)
        doubtful = low_rank or lower.factorised or upper.factorised or not lower.biased or last_two
        found[lower.layer] = max(found[lower.layer], DOUBTFUL if doubtful else DIRECT)
    return found


def _is_last(call: Linear, graph: Graph) -> bool:
    """Whether no other linear map comes after `call` on its way to the loss."""
    waiting, seen = [call.node], set()
    while waiting:
        for parent in graph.readers.get(id(waiting.pop()), ()):
            if id(parent) in seen:
                continue
            if name_of(parent) in LINEAR:
                return False
            seen.add(id(parent))
            waiting.append(parent)
    return True


def passages(graph: Graph, heads: list[Linear], calls: Mapping[int, Linear]) -> dict[int, float]:
    """Layers that everything passes through on its way to the loss, with the number of values they let through.

    Followed from the only last layer towards the input, as long as there is one way.
    """
    if len(heads) != 1:
        return {}
    found: dict[int, float] = {}
    node = heads[0].source
    while node is not None and graph.single_use(node):
        call = calls.get(id(node))
        if call is not None:
            shape = shape_of(node) or ()
            found[call.layer] = float(math.prod(shape[1:]))
            node = call.source
            continue
        sources = [child for child in children(node) if getattr(skip_shape_only(child), "variable", None) is None]
        if len(sources) != 1:
            break
        node = sources[0]
    return found


def attends_to_one(graph: Graph) -> bool:
    """Whether every attention in the graph has one position alone to look at."""
    lengths: list[int] = []
    for node in graph.nodes.values():
        if name_of(node).startswith("ScaledDotProduct"):
            key = saved_tensor(node, "_saved_key")
            if key is not None and key.dim() >= 3:
                lengths.append(key.shape[-2])
        elif name_of(node) in SOFTMAX and "BmmBackward0" in {name_of(skip_shape_only(c)) for c in children(node)}:
            shape = shape_of(node)
            lengths.append(shape[-1] if shape else 0)
    return bool(lengths) and max(lengths) == 1


@dataclass
class _Step:
    """What one step has shown so far."""

    starts: list[Any] = field(default_factory=list)
    losses: list[Any] = field(default_factory=list)
    results: dict[int, list[tuple[Any, Any]]] = field(default_factory=dict)
    """By layer: what made the input and what made the output of each call."""
    measured: dict[str, Measured] = field(default_factory=dict)


class StructureProbe:
    """Reads the structure of the model off the graphs of a few steps."""

    name = "structure"
    tier = "graph"
    hooks_layers = True
    signals = ("layer.linear_into", "layer.passage", "layer.result_unused", "layer.dropout", "layer.constant_by_shape", "model.attends_to_one")

    def __init__(self) -> None:
        self._index: ModelIndex | None = None
        self._places: tuple[Place, ...] = ()
        self._sampled_steps = 0
        self._looks = 0
        self._step: _Step | None = None
        self._hooks = HookSet(self._forget_hooks)
        self._used: set[int] = set()
        self._unused: set[int] = set()
        self._constant: dict[int, bool] = {}
        self._dropout: dict[int, float] = {}

    def attach(self, index: ModelIndex) -> None:
        self._index = index
        self._places = tuple(p for p in places(index)[0] if p.layer is not None and p.fused_in is None and _adds_no_weights(p.module))

    def detach(self) -> None:
        self._hooks.remove()
        self._step = None
        self._index = None

    def _forget_hooks(self) -> None:
        self._step = None

    def begin_step(self, step: int, sampled: bool) -> None:
        self._hooks.remove()
        self._step = None
        if not sampled or self._looks >= LOOKS:
            return
        self._sampled_steps += 1
        if self._sampled_steps > 1:  # what is compiled in the first step must not be compiled with hooks in it
            self._step = _Step()
            for place in self._places:
                self._hooks.after(place, self._layer_ended)

    def _layer_ended(self, place: Place, module: nn.Module, args: Any, output: Any) -> None:
        step = self._step
        if step is None or place.layer is None or not torch.is_grad_enabled() or in_backward() or is_transformed():
            return
        given = args[0] if args else None
        if not isinstance(output, torch.Tensor) or output is given or output.grad_fn is None:
            return
        if isinstance(module, DROPOUTS) and isinstance(given, torch.Tensor) and given.grad_fn is not None:
            self._dropout[place.layer] = float(getattr(module, "p", NAN))  # not of the model's input, which is another matter
        self._constant[place.layer] = self._constant.get(place.layer, True) and constant_by_shape(module, output)
        if isinstance(given, torch.Tensor) and given.grad_fn is not None and output.grad_fn is not given.grad_fn:
            step.results.setdefault(place.layer, []).append((given.grad_fn, output.grad_fn))

    def forward_ended(self, root: object, output: object) -> None:
        """Note what the model hands out: it is used, whatever the loss does with it."""
        if self._step is not None:
            self._step.starts.extend(t.grad_fn for t in tensors_in(output) if t.grad_fn is not None)

    def backward_begins(self, loss: object) -> None:
        """Note the loss; the graph itself is read when the step is over, for all losses of the step together."""
        if self._step is not None and isinstance(loss, torch.Tensor) and loss.grad_fn is not None:
            self._step.losses.append(loss.grad_fn)
            if len(self._step.losses) == 1:
                self._step.measured = self._examine(loss.grad_fn)

    def _examine(self, start: Any) -> dict[str, Measured]:
        """What has to be read before backward frees what the nodes keep."""
        index = self._index
        if index is None:
            return {}
        graph = read_graph([start])
        calls = {id(call.node): call for call in graph.linears(index)}
        heads = [call for call in calls.values() if _is_last(call, graph)]
        sizes = len(index.layers)
        found: dict[str, Measured] = {"model.attends_to_one": float(attends_to_one(graph))}
        for name, values in (
            ("layer.linear_into", linear_pairs(graph, index)),
            ("layer.passage", passages(graph, heads, calls)),
        ):
            if values:
                found[name] = [values.get(number, NAN) for number in range(sizes)]
        return found

    def collect(self) -> Mapping[str, Measured]:
        """What this step has shown.

        Raises:
            Exception: what went wrong in a hook.
        """
        failure = self._hooks.failure
        self._hooks.remove()
        step, self._step = self._step, None
        if failure is not None:
            raise failure
        if step is None or not step.losses or self._index is None:
            return {}
        self._looks += 1
        measured = step.measured
        if step.starts:
            self._note_uses(step)
        size = len(self._index.layers)
        watched = self._used | self._unused
        if watched and self._looks > 1:
            unused = self._unused - self._used
            measured["layer.result_unused"] = [float(n in unused) if n in watched else NAN for n in range(size)]
        if self._dropout:
            measured["layer.dropout"] = [self._dropout.get(n, NAN) for n in range(size)]
        if self._constant:
            measured["layer.constant_by_shape"] = [float(self._constant[n]) if n in self._constant else NAN for n in range(size)]
        return measured

    def _note_uses(self, step: _Step) -> None:
        """Tell layers whose result goes somewhere from those whose input alone does.

        Where neither does, a whole branch is left aside (a teacher, a target network), which is no mistake.
        """
        reached = read_graph([*step.losses, *step.starts]).nodes
        for layer, calls in step.results.items():
            if any(id(result) in reached for _, result in calls):
                self._used.add(layer)
            elif any(id(given) in reached for given, _ in calls):
                self._unused.add(layer)


def _adds_no_weights(module: nn.Module) -> bool:
    """Activations, dropouts and normalisations: modules that are called for their result and nothing else."""
    return isinstance(module, (*NORMALISATIONS, *DROPOUTS)) or activation_of(module) is not None


def constant_by_shape(module: nn.Module, output: torch.Tensor) -> bool:
    """Whether a normalisation has a single value to normalise, so that it returns its bias whatever comes in."""
    if isinstance(module, nn.LayerNorm):
        return math.prod(module.normalized_shape) == 1
    if isinstance(module, nn.GroupNorm) and output.dim() >= 2:
        return output.numel() == output.shape[0] * module.num_groups
    return False


def tensors_in(value: object, depth: int = 0) -> Iterator[torch.Tensor]:
    """Every tensor in nested tuples, lists, mappings and the attributes of output classes."""
    if isinstance(value, torch.Tensor):
        yield value
    elif depth < 4 and isinstance(value, Mapping):
        for child in value.values():
            yield from tensors_in(child, depth + 1)
    elif depth < 4 and isinstance(value, (tuple, list)):
        for child in value:
            yield from tensors_in(child, depth + 1)
    elif depth < 4 and hasattr(value, "__dict__") and not isinstance(value, nn.Module):
        for child in vars(value).values():
            yield from tensors_in(child, depth + 1)
