"""Runs one training step again, on copies, and says where the first NaN or infinity is made and which samples do it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Located:
    """Where a step stops being finite.

    Args:
        loss: of the step.
        data: what entered holds NaN or infinity.
        weights: parameters and buffers that held them before the step; then nothing below means much.
        forward: the first module, in order of execution, whose output is not finite though its inputs are.
        backward: the first module, in order of the backward pass, the gradient of whose output is not finite, or,
            where all of these are finite, whose parameters' gradients are not.
        backward_after: the module whose output had the last finite gradient before; the operation lies between the two.
        samples: rows of the batch that are not finite by themselves; empty where none or all of them are.

    Examples:
        >>> print(Located(0.72, False, (), None, "embed", "distance", (7,)))
        the loss is 0.72; first gradient that is not finite: embed, after distance; rows of the batch that do it: 7
    """

    loss: float
    data: bool
    weights: tuple[str, ...]
    forward: str | None
    backward: str | None
    backward_after: str | None
    samples: tuple[int, ...]

    @property
    def finite(self) -> bool:
        """Whether nothing was found: loss, outputs and gradients are all finite."""
        return isfinite(self.loss) and not (self.data or self.weights or self.forward or self.backward)

    def __str__(self) -> str:
        if self.finite:
            return f"everything is finite; the loss is {self.loss:.6g}"
        told = [f"the loss is {self.loss:.6g}"]
        if self.weights:
            told.append(f"{', '.join(self.weights[:4])} held NaN or infinity before the step: take weights from before")
        if self.data:
            told.append("the batch itself holds NaN or infinity")
        if self.forward is not None:
            told.append(f"first output that is not finite: {self.forward or 'the model'}")
        if self.backward is not None:
            after = f", after {self.backward_after or 'the model'}" if self.backward_after is not None else ""
            told.append(f"first gradient that is not finite: {self.backward or 'the model'}{after}")
        if self.samples:
            told.append(f"rows of the batch that do it: {', '.join(map(str, self.samples))}")
        return "; ".join(told)


def locate_nonfinite(model: nn.Module, loss_fn: Callable[..., Tensor], batch: Sequence[Any]) -> Located:
    """Run forward, loss and backward once more and say where the first NaN or infinity is made.

    Model and batch are copied, the random state is put back: nothing of the caller's changes.

    Args:
        model: with the weights from before the step.
        loss_fn: called as ``loss_fn(model(inputs), targets)``; gives a scalar.
        batch: ``(inputs, targets)``; inputs may be a tensor, a tuple (``model(*inputs)``) or a mapping
            (``model(**inputs)``).

    Raises:
        ValueError: `batch` is not a pair.

    Examples:
        >>> class Length(nn.Module):
        ...     def forward(self, rows):
        ...         return rows.pow(2).sum(dim=1).sqrt()
        >>> model = nn.Sequential(nn.Linear(2, 3, bias=False), Length())
        >>> inputs = torch.tensor([[1.0, 2.0], [0.0, 0.0], [3.0, 1.0]])  # the length of the second row is 0
        >>> found = locate_nonfinite(model, nn.MSELoss(), (inputs, torch.ones(3)))
        >>> found.finite, found.backward, found.samples
        (False, '0', (1,))
    """
    if len(batch) != 2:
        raise ValueError(f"expected batch as (inputs, targets), got {len(batch)} parts")
    weights = tuple(name for name, tensor in _state(model) if not _finite(tensor))
    with torch.random.fork_rng(devices=_devices(model)), torch.enable_grad():
        step = _Step(model)
        loss = step.run(loss_fn, batch)
        samples = () if step.finite and isfinite(loss) else _culprits(model, loss_fn, batch)
    return Located(
        loss=loss,
        data=not all(_finite(tensor) for tensor in _tensors(batch)),
        weights=weights,
        forward=step.forward,
        backward=step.backward,
        backward_after=step.backward_after,
        samples=samples,
    )


class _Step:
    """One forward and backward pass of a copy, watched module by module."""

    def __init__(self, model: nn.Module) -> None:
        self._model = copy.deepcopy(model)
        self.forward: str | None = None
        self.backward: str | None = None
        self.backward_after: str | None = None
        self._last_finite: str | None = None

    @property
    def finite(self) -> bool:
        return self.forward is None and self.backward is None

    def run(self, loss_fn: Callable[..., Tensor], batch: Sequence[Any]) -> float:
        """The loss; what was seen on the way is in the attributes."""
        for name, module in self._model.named_modules():
            if not any(True for _ in module.children()):
                module.register_forward_hook(self._seen_forward(name))
        self._model.zero_grad(set_to_none=True)
        loss = _loss(self._model, loss_fn, _copied(batch))
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        if self.backward is None:
            self.backward = self._own_gradients()
        return float(loss.detach())

    def _own_gradients(self) -> str | None:
        """The last module in order of definition whose own parameters have a gradient that is not finite."""
        broken = [
            name
            for name, module in self._model.named_modules()
            if any(p.grad is not None and not _finite(p.grad) for p in module.parameters(recurse=False))
        ]
        return broken[-1] if broken else None

    def _seen_forward(self, name: str) -> Callable[..., None]:
        def seen(module: nn.Module, inputs: object, output: object) -> None:
            tensors = _tensors(output)
            if self.forward is None and not all(map(_finite, tensors)) and all(map(_finite, _tensors(inputs))):
                self.forward = name
            for tensor in tensors:
                if tensor.requires_grad:
                    tensor.register_hook(self._seen_backward(name))  # type: ignore[no-untyped-call]

        return seen

    def _seen_backward(self, name: str) -> Callable[[Tensor], None]:
        def seen(gradient: Tensor) -> None:
            if self.backward is not None:
                return
            if _finite(gradient):
                self._last_finite = name
            else:
                self.backward, self.backward_after = name, self._last_finite

        return seen


def _culprits(model: nn.Module, loss_fn: Callable[..., Tensor], batch: Sequence[Any]) -> tuple[int, ...]:
    """Rows that are not finite by themselves, by halving; empty where all of them are, or rows cannot be told."""
    sizes = {len(tensor) for tensor in _tensors(batch) if tensor.dim()}
    if len(sizes) != 1 or not (rows := sizes.pop()):
        return ()
    single = copy.deepcopy(model)
    for module in single.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()  # one row has no variance

    def broken(begin: int, end: int) -> bool:
        step = _Step(single)
        loss = step.run(loss_fn, _rows(batch, begin, end))
        return not (isfinite(loss) and step.finite)

    found: list[int] = []
    pending = [(0, rows)]
    while pending:
        begin, end = pending.pop()
        if not broken(begin, end):
            continue
        if end - begin == 1:
            found.append(begin)
        else:
            middle = (begin + end) // 2
            pending += [(middle, end), (begin, middle)]
    return tuple(found) if len(found) < rows else ()


def _loss(model: nn.Module, loss_fn: Callable[..., Tensor], batch: Sequence[Any]) -> Tensor:
    inputs, targets = batch
    if isinstance(inputs, Mapping):
        return loss_fn(model(**inputs), targets)
    return loss_fn(model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs), targets)


def _mapped(value: Any, change: Callable[[Tensor], Any]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _mapped(item, change) for key, item in value.items()}
    return type(value)(_mapped(item, change) for item in value) if type(value) in (tuple, list) else value


def _copied(batch: Sequence[Any]) -> Any:
    return _mapped(tuple(batch), lambda tensor: tensor.detach().clone())


def _rows(batch: Sequence[Any], begin: int, end: int) -> Any:
    return _mapped(tuple(batch), lambda tensor: tensor[begin:end] if tensor.dim() else tensor)


def _tensors(value: object) -> list[Tensor]:
    found: list[Tensor] = []
    _mapped(value if not isinstance(value, Sequence) else tuple(value), found.append)
    return found


def _finite(tensor: Tensor) -> bool:
    dense = tensor.detach()
    dense = dense.coalesce().values() if dense.is_sparse else dense
    return not (dense.is_floating_point() or dense.is_complex()) or bool(torch.isfinite(dense).all())


def _state(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _devices(model: nn.Module) -> list[torch.device]:
    return sorted({tensor.device for _, tensor in _state(model) if tensor.device.type == "cuda"}, key=str)
