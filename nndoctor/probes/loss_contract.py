"""What a loss expects of outputs and targets, held against what it gets: read off its nodes, without thresholds.

Only the part of the graph between the loss and the last layers of the model is walked, so the cost does not
depend on the size of the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from nndoctor.discovery import ModelIndex
from nndoctor.probes.base import Measured
from nndoctor.probes.data import last_tensor
from nndoctor.probes.nodes import children, name_of, saved, saved_integer, saved_tensor, shape_of, skip_shape_only

LAYERS = frozenset(f"{name}Backward0" for name in ("Addmm", "Mm", "Bmm", "Convolution", "Embedding", "Linear"))
"""Operations with weights: behind them is the model, before them the loss."""

LARGEST_REGION = 512
MOST_ROWS = 256
MOST_ELEMENTS = 1 << 16

DISTANCES = frozenset({"MseLossBackward0", "SmoothL1LossBackward0", "HuberLossBackward0"})
INLINE_DISTANCES = frozenset({"PowBackward0", "AbsBackward0"})
CLASS_LOSSES = frozenset({"NllLossBackward0", "NllLoss2DBackward0"})
BINARY_LOSSES = frozenset({"BinaryCrossEntropyBackward0", "BinaryCrossEntropyWithLogitsBackward0"})

ROW_TOLERANCE = 0.01
"""How far the sum of a row of target probabilities may be from 1; rounding to float16 stays below it."""


@dataclass(frozen=True)
class Activation:
    """The function that the model's outputs went through last.

    Args:
        name: as a person calls it; empty where the outputs come straight from a layer.
        low, high: smallest and largest value it can return.
    """

    name: str = ""
    low: float = -math.inf
    high: float = math.inf

    @property
    def bounded(self) -> bool:
        return self.low > -math.inf or self.high < math.inf


RANGES: Mapping[str, Activation] = {
    "ReluBackward0": Activation("relu", low=0.0),
    "SigmoidBackward0": Activation("sigmoid", 0.0, 1.0),
    "TanhBackward0": Activation("tanh", -1.0, 1.0),
    "SoftmaxBackward0": Activation("softmax", 0.0, 1.0),
    "SoftplusBackward0": Activation("softplus", low=0.0),
    "LogSoftmaxBackward0": Activation("log-softmax", high=0.0),
}


@dataclass(frozen=True)
class Comparison:
    """One place at which a loss meets the outputs of the model.

    Args:
        node: the loss's own node, in autograd's graph.
        fed: the operation whose result it got, views and copies left out.
    """

    node: Any
    fed: Any

    @property
    def kind(self) -> str:
        return name_of(self.node)


def loss_region(loss: torch.Tensor) -> list[Any]:
    """The nodes of the loss itself: from its end to the last layers of the model, each once."""
    found: list[Any] = []
    seen: set[int] = set()
    waiting = [loss.grad_fn] if loss.grad_fn is not None else []
    while waiting and len(found) < LARGEST_REGION:
        node = waiting.pop()
        if id(node) in seen or name_of(node) in LAYERS:
            continue
        seen.add(id(node))
        found.append(node)
        waiting.extend(children(node))
    return found


def comparisons(region: list[Any]) -> list[Comparison]:
    """Where outputs meet targets; a difference that is squared or made positive inline counts as one."""
    found: list[Comparison] = []
    for node in region:
        name = name_of(node)
        if name in CLASS_LOSSES or name in BINARY_LOSSES or name in DISTANCES:
            found.append(Comparison(node, skip_shape_only(next(children(node), node))))
        elif name in INLINE_DISTANCES:
            difference = next(children(node), None)
            if name_of(difference) in ("SubBackward0", "RsubBackward1", "RsubBackward0"):
                operands = list(children(difference))
                if len(operands) == 1:  # the other one has no gradient: targets
                    found.append(Comparison(node, skip_shape_only(operands[0])))
    return found


def output_activation(fed: Any) -> Activation:
    """The activation function that `fed` is, with its range; an unnamed one where it is none."""
    if name_of(fed) == "HardtanhBackward0":
        low, high = saved(fed, "_saved_min_val"), saved(fed, "_saved_max_val")
        return Activation("hardtanh", float(low), float(high)) if low is not None and high is not None else Activation()
    return RANGES.get(name_of(fed), Activation())


def softmax_width(node: Any) -> int | None:
    """Number of values that a (log-)softmax normalises over."""
    shape, dim = shape_of(node), saved_integer(node, "_saved_dim")
    if not shape or dim is None:
        return None
    return shape[dim] if -len(shape) <= dim < len(shape) else None


def rows_of(scores: torch.Tensor, dim: int = 1) -> torch.Tensor:
    """At most 256 rows of scores or probabilities with the classes last, (rows, classes), float32."""
    dim = dim if scores.dim() > 1 else 0
    rows = scores.movedim(dim, -1).reshape(-1, scores.shape[dim])
    return rows[:: -(-len(rows) // MOST_ROWS)].float()


def some_of(tensor: torch.Tensor) -> torch.Tensor:
    """At most 65536 elements, (n,), float32."""
    flat = tensor.reshape(-1)
    return flat[:: -(-flat.numel() // MOST_ELEMENTS)].float()


def integral(values: torch.Tensor) -> torch.Tensor:
    """Whether all of `values` are whole numbers, and none is negative: a 0-d tensor."""
    return ((values == values.round()) & (values >= 0)).all()


# what each kind of loss promises


def class_loss_signals(comparison: Comparison) -> dict[str, Measured]:
    """A loss over log-probabilities: are they log-probabilities, of more than one class?"""
    scores = saved_tensor(comparison.node, "_saved_self")
    if scores is None or scores.numel() == 0:
        return {}
    dim = 1 if scores.dim() > 1 else 0
    found: dict[str, Measured] = {"loss.single_class": float(scores.shape[dim] == 1)}
    if name_of(comparison.fed) == "LogSoftmaxBackward0":
        found["loss.unnormalised"] = 0.0
    else:
        found["loss.unnormalised"] = torch.logsumexp(rows_of(scores, dim), 1).abs().median()[None]
    return found


def soft_target_signals(region: list[Any]) -> dict[str, Measured]:
    """A cross entropy with probabilities as targets: do they sum to one?"""
    for node in region:
        fed = skip_shape_only(next(children(node), node))
        if name_of(node) != "MulBackward0" or name_of(fed) != "LogSoftmaxBackward0" or len(list(children(node))) != 1:
            continue
        targets, width, dim = saved_tensor(node, "_saved_other"), softmax_width(fed), saved_integer(fed, "_saved_dim")
        if targets is None or width is None or dim is None or targets.shape != shape_of(fed):
            continue
        if width == 1:
            return {"loss.single_class": 1.0}
        rows = rows_of(targets, dim)
        several = (rows != 0).sum(1) > 1  # one weighted class is a class weight
        off = several & ((rows.sum(1) - 1).abs() > ROW_TOLERANCE)
        return {"loss.single_class": 0.0, "loss.soft_targets_off": off.float().mean()[None]}
    return {}


def binary_signals(comparison: Comparison) -> dict[str, Measured]:
    """A binary cross entropy: are the targets between 0 and 1, and can several of them be 1 at once?"""
    targets = saved_tensor(comparison.node, "_saved_target")
    if targets is None or targets.numel() == 0:
        return {}
    values = some_of(targets)
    outside = (values < -1e-6) | (values > 1 + 1e-6)
    found: dict[str, Measured] = {"loss.binary_outside": outside.float().mean()[None]}
    if targets.dim() == 2 and targets.shape[1] > 2:
        rows = rows_of(targets)
        found["loss.one_hot_binary"] = _one_hot(rows).float()[None]
    return found


def _one_hot(rows: torch.Tensor) -> torch.Tensor:
    """Whether every row holds a single one among zeros, and not always at the same place: a 0-d tensor."""
    binary = ((rows == 0) | (rows == 1)).all() & (rows.sum(1) == 1).all()
    return binary & (rows.amin(0) != rows.amax(0)).any()


def distance_signals(comparison: Comparison, loader_target: torch.Tensor | None) -> dict[str, Measured]:
    """A distance between real numbers: are the targets classes?"""
    targets, shape = target_of(comparison, loader_target)
    if targets is None or not shape:
        return {}
    found: dict[str, Measured] = {"loss.one_hot_distance": 0.0, "loss.label_for_every_output": 0.0, "loss.label_distance": 0.0}
    if len(shape) == 2 and shape[1] > 2:
        if targets.shape == shape and targets.stride(1) == 0:
            labels = targets[:, 0].float()
            found["loss.label_for_every_output"] = (integral(labels) & (labels.amax() < shape[1])).float()[None]
        elif targets.shape == shape:
            found["loss.one_hot_distance"] = _one_hot(rows_of(targets)).float()[None]
    elif loader_target is not None and not loader_target.is_floating_point() and loader_target.dtype != torch.bool:
        labels = loader_target.reshape(-1)
        one_each = labels.numel() == math.prod(shape) and len(shape) <= 2
        if one_each and labels.numel() > 0:
            found["loss.label_distance"] = (integral(labels.float()) & (labels.amax() > 1)).float()[None]
    return found


def target_of(comparison: Comparison, loader_target: torch.Tensor | None) -> tuple[torch.Tensor | None, tuple[int, ...]]:
    """What a distance compares with, as its node keeps it or else as the loader gave it, and the shape of the outputs."""
    targets = saved_tensor(comparison.node, "_saved_target")
    outputs = saved_tensor(comparison.node, "_saved_self")
    shape = tuple(outputs.shape) if outputs is not None else (shape_of(comparison.node) or ())
    if targets is None and loader_target is not None and loader_target.numel() == math.prod(shape):
        targets = loader_target
    return targets, shape


# what the last activation can return


def output_signals(comparison: Comparison, loader_target: torch.Tensor | None) -> dict[str, Measured]:
    """Whether the last activation function of the model can return what the targets ask for.

    ``output.unreachable`` is the smallest loss that any weights could reach, over the loss of the best constant answer.
    """
    width = softmax_width(comparison.fed) if name_of(comparison.fed) in ("SoftmaxBackward0", "LogSoftmaxBackward0") else None
    found: dict[str, Measured] = {"output.softmax_of_one": float(width == 1)}
    share: Measured | None
    if comparison.kind in CLASS_LOSSES and name_of(comparison.fed) == "LogSoftmaxBackward0":
        source = skip_shape_only(next(children(comparison.fed), comparison.fed))
        activation = output_activation(source)
        scores = saved_tensor(comparison.node, "_saved_self")
        share = unreachable_classes(activation, scores.shape[1]) if scores is not None and scores.dim() > 1 else None
    elif comparison.kind == "BinaryCrossEntropyWithLogitsBackward0":
        activation = output_activation(comparison.fed)
        targets = saved_tensor(comparison.node, "_saved_target")
        share = unreachable_binary(activation, targets) if targets is not None else None
    elif comparison.kind in DISTANCES or comparison.kind in INLINE_DISTANCES:
        activation = output_activation(comparison.fed)
        targets, _ = target_of(comparison, loader_target)
        share = unreachable_distance(activation, targets) if targets is not None else None
    else:
        return found
    if share is not None:
        found["output.unreachable"] = share
        if activation.bounded:
            found["output.low"], found["output.high"] = activation.low, activation.high
    return found


def unreachable_classes(activation: Activation, classes: int) -> float:
    """Best cross entropy of logits within the activation's range, over that of a uniform guess.

    The right class at the top and all others at the bottom: ln(1 + (C - 1) exp(low - high)) / ln C. The ranges of
    softmax and sigmoid are left out: with them it is a double softmax.
    """
    if classes < 2 or not activation.bounded or activation.name in ("softmax", "sigmoid", "log-softmax"):
        return 0.0
    return math.log1p((classes - 1) * math.exp(activation.low - activation.high)) / math.log(classes)


def unreachable_binary(activation: Activation, targets: torch.Tensor) -> Measured:
    """Best binary cross entropy of logits within the activation's range, over ln 2; mean over the targets."""
    if not activation.bounded or activation.name in ("softmax", "sigmoid", "log-softmax"):
        return 0.0
    values = some_of(targets).clamp(0, 1)
    best = torch.logit(values, eps=1e-6).clamp(activation.low, activation.high)
    # Soft targets have an entropy of their own, which no logit gets below.
    own = F.binary_cross_entropy(values, values, reduction="none")
    loss = F.binary_cross_entropy_with_logits(best, values, reduction="none") - own
    return (loss.clamp_min(0).mean() / math.log(2))[None]


def unreachable_distance(activation: Activation, targets: torch.Tensor) -> Measured:
    """Mean squared distance of the targets from the activation's range, over their variance."""
    if not activation.bounded or targets.numel() == 0:
        return 0.0
    values = some_of(targets)
    missed = (values - values.clamp(activation.low, activation.high)).square().mean()
    return (missed / values.var(correction=0).clamp_min(1e-12)).clamp_max(1)[None]


def contract_signals(loss: torch.Tensor, loader_target: torch.Tensor | None) -> dict[str, Measured]:
    """All of the above for the loss about to be handed to backward; of several comparisons the worst counts."""
    region = loss_region(loss)
    found: dict[str, Measured] = dict(soft_target_signals(region))
    for comparison in comparisons(region):
        signals = dict(output_signals(comparison, loader_target))
        if comparison.kind in CLASS_LOSSES:
            signals.update(class_loss_signals(comparison))
        elif comparison.kind in BINARY_LOSSES:
            signals.update(binary_signals(comparison))
        else:
            signals.update(distance_signals(comparison, loader_target))
        for name, value in signals.items():
            found[name] = worse(found[name], value) if name in found else value
    return found


def worse(one: Measured, other: Measured) -> Measured:
    """The larger of two measurements of one signal."""
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        like = next(t for t in sorted((one, other), key=_on_device) if isinstance(t, torch.Tensor))
        return torch.maximum(*(torch.as_tensor(value).to(like, non_blocking=True) for value in (one, other)))
    return max(one, other)


def _on_device(value: Measured) -> bool:
    """Sorts what is on an accelerator first: nothing may be copied back from there."""
    return not (isinstance(value, torch.Tensor) and value.device.type != "cpu")


class LossContractProbe:
    """Holds what the loss expects against what it gets, on sampled steps."""

    name = "loss contract"
    tier = "graph"
    signals = (
        "loss.single_class", "loss.unnormalised", "loss.soft_targets_off", "loss.binary_outside", "loss.one_hot_binary",
        "loss.one_hot_distance", "loss.label_for_every_output", "loss.label_distance",
        "output.softmax_of_one", "output.unreachable", "output.low", "output.high",
    )  # fmt: skip

    def __init__(self) -> None:
        self._measured: dict[str, Measured] = {}
        self._target: torch.Tensor | None = None

    def attach(self, index: ModelIndex) -> None: ...

    def detach(self) -> None:
        self._measured = {}
        self._target = None

    def begin_step(self, step: int, sampled: bool) -> None:
        self._measured = {}

    def batch_loaded(self, loader: object, batch: object, training: bool) -> None:
        """Keep what may be the targets of a training batch until its step is over."""
        if training:
            self._target = last_tensor(batch)

    @torch.no_grad()
    def backward_begins(self, loss: object) -> None:
        """Examine the first loss of the step."""
        if not self._measured and isinstance(loss, torch.Tensor) and loss.grad_fn is not None:
            self._measured = contract_signals(loss, self._target)

    def collect(self) -> Mapping[str, Measured]:
        measured, self._measured, self._target = self._measured, {}, None
        return measured
