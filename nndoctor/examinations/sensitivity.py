"""Gradients of chosen outputs with respect to what the model reads, tokens included (at their embeddings)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nndoctor.examinations.patient import Batch, NotExaminable, Trial
from nndoctor.examinations.trees import named_tensors

NOTHING = 1e-6
"""Share of the largest gradient that counts as none; zeros are exact but for rounding in a few kernels."""


@dataclass(frozen=True)
class Response:
    """One forward pass whose inputs are open to differentiation.

    Args:
        leaves: floating-point inputs, and the embeddings of tokens, with samples along the first dimension.
        outputs: floating-point outputs with history, by name.
    """

    leaves: tuple[Tensor, ...]
    outputs: tuple[tuple[str, Tensor], ...]


def respond(trial: Trial, batch: Batch, is_leaf: Callable[[Tensor], bool]) -> Response:
    """Run `batch` through the copy, with every input and embedding that `is_leaf` wants as a leaf of the graph."""
    leaves: list[Tensor] = []

    def opened(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or not is_leaf(tensor):
            return tensor
        leaf = tensor.detach().clone().requires_grad_()
        leaves.append(leaf)
        return leaf.clone()  # a leaf itself could not be changed in place by the model

    with embeddings_replaced(trial.model, lambda tensor: opened(tensor) if is_leaf(tensor) else None):
        outputs = trial.outputs(batch.with_inputs(opened))
    reached = tuple((name, t) for name, t in named_tensors(outputs) if t.is_floating_point() and t.requires_grad)
    if not leaves:
        raise NotExaminable("no input can be differentiated: neither floating-point tensors nor embeddings of tokens")
    return Response(tuple(leaves), reached)


@contextmanager
def embeddings_replaced(model: nn.Module, change: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """While it lasts, what `change` returns (unless None) takes the place of every looked up embedding."""

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        return change(output)

    tables = [m for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))]
    handles = [table.register_forward_hook(hook) for table in tables]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def gradients(picked: Tensor, leaves: tuple[Tensor, ...], generator: torch.Generator) -> list[Tensor]:
    """Gradient of a random sum of `picked` to each leaf, zeros where there is none; the graph is kept.

    Random weights, because a plain sum of a softmax or of a normalised vector has no gradient at all.
    """
    weights = torch.randn(picked.shape, generator=generator).to(picked)
    with torch.backends.cudnn.flags(enabled=False):  # its recurrent layers have no backward pass in eval mode
        found = torch.autograd.grad((picked * weights).sum(), leaves, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(leaf) if g is None else g.detach() for g, leaf in zip(found, leaves, strict=True)]


def only_axis(tensor: Tensor, size: int) -> int | None:
    """The one dimension of `tensor` that has `size` entries; None where there is none, or several."""
    axes = [axis for axis, count in enumerate(tensor.shape) if count == size]
    return axes[0] if len(axes) == 1 else None


def per_entry(tensor: Tensor, axis: int) -> Tensor:
    """Largest absolute value of each entry along `axis`, as numbers on the processor."""
    moved = tensor.movedim(axis, 0)
    return moved.reshape(moved.shape[0], -1).abs().amax(dim=1).float().cpu()
