"""Who is examined in the lab: a model, its loss and fixed batches; every examination gets a copy to work on."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nndoctor.discovery import unwrap
from nndoctor.examinations.patient import (
    Batch,
    LossFunction,
    Trial,
    first_batches,
    read_batch,
    takes_output_alone,
)
from nndoctor.examinations.trees import tensors
from nndoctor.examinations.untouched import copied, generators_kept, seed_generators


@dataclass(frozen=True)
class Evaluation:
    """Loss and accuracy over all batches of a subject.

    Args:
        loss: mean over samples (over batches, weighted by their number of samples).
        accuracy: share of samples whose largest output is their label; None where targets are no class labels.
        losses: mean loss of each batch.
        sizes: samples of each batch; 1 where samples cannot be told apart.
    """

    loss: float
    accuracy: float | None
    losses: tuple[float, ...]
    sizes: tuple[int, ...]


@dataclass
class Subject(Trial):
    """A copy of the patient that an examination may do with as it likes, with the batches to look at it with."""

    batches: tuple[Batch, ...] = ()

    def batch_loss(self, batch: Batch) -> Tensor:
        """The loss of one batch as a scalar with its graph."""
        return self.loss(self.outputs(batch), batch)

    def mean_loss(self) -> Tensor:
        """Mean loss over the samples of all batches, with its graph; needs memory for all of them at once."""
        total = sum(sample_count(batch) for batch in self.batches)
        parts = [self.batch_loss(batch) * (sample_count(batch) / total) for batch in self.batches]
        return torch.stack(parts).sum()

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """Loss and accuracy as the model is now, in the mode that it is in."""
        losses, sizes = [], []
        right = judged = 0
        for batch in self.batches:
            outputs = self.outputs(batch)
            losses.append(float(self.loss(outputs, batch)))
            sizes.append(sample_count(batch))
            hits, count = _hits(outputs, batch.answers)
            right, judged = right + hits, judged + count
        loss = sum(map(math.prod, zip(losses, sizes, strict=True))) / max(1, sum(sizes))
        return Evaluation(loss, right / judged if judged else None, tuple(losses), tuple(sizes))


@dataclass(frozen=True)
class Patient:
    """A model, its loss and fixed batches. Neither is ever run or written: :meth:`examined` gives a copy for that.

    Args:
        model: any module; wrappers such as DistributedDataParallel are looked through.
        loss_function: called as ``loss_function(output, targets)``, a mean over samples; None where the output of the
            model holds the loss.
        batches: what it is examined with, always the same ones.
    """

    model: nn.Module
    loss_function: LossFunction | None
    batches: tuple[Batch, ...] = field(repr=False)

    @classmethod
    def of(
        cls, model: nn.Module, loss_fn: LossFunction | None, batches: Any, *, max_batches: int | None = None
    ) -> Patient:
        """The patient made of a user's own objects.

        Args:
            batches: a DataLoader (its sampler and the random generators stay where they are), any iterable of batches,
                or one batch as ``(inputs, targets)`` or dict of keywords. Batches go to the model's device.
            max_batches: read no more than these.

        Raises:
            TypeError: `model` is no module, or there is no tensor in a batch.
            ValueError: there is no batch at all.
        """
        if not isinstance(model, nn.Module):
            raise TypeError(f"expected a torch.nn.Module, got {type(model).__name__}")
        loss = _OfOutputAlone(loss_fn) if loss_fn is not None and takes_output_alone(loss_fn) else loss_fn
        with generators_kept():
            sources = _sources(batches, max_batches)
        device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))
        read = tuple(read_batch(source, loss, None).mapped(lambda t: t.detach().to(device)) for source in sources)
        if not read:
            raise ValueError("expected at least one batch, got none")
        return cls(unwrap(model), loss, read)

    @property
    def samples(self) -> int:
        """Samples in all batches together."""
        return sum(sample_count(batch) for batch in self.batches)

    @contextmanager
    def examined(self, *, train: bool = False, dtype: torch.dtype | None = None, seed: int = 0) -> Iterator[Subject]:
        """A copy to examine; afterwards, also on an error, random generators are what they were before.

        Model, buffers, gradients, modes and hooks of the user's are not touched at all: the copy is thrown away.

        Args:
            train: the copy in training mode, but for the parts that the user keeps in eval mode; else all in eval mode.
            dtype: floating-point type of the copy and its batches, such as ``torch.float64``.
            seed: random generators start here, so that examinations are repeatable.
        """
        with generators_kept(), torch.enable_grad():
            seed_generators(seed)
            model, loss = copied(self.model, self.loss_function)
            for part in (model, loss):
                if isinstance(part, nn.Module):
                    if not (train and part.training):
                        part.train(train)
                    part.to(dtype=dtype)
            yield Subject(model, loss, None, batches=tuple(_cast(batch, dtype) for batch in self.batches))

    def fingerprint(self, *settings: object) -> str:
        """Twelve letters that tell this model, its weights, the batches and `settings` apart from others."""
        digest = hashlib.sha256(repr((type(self.model).__qualname__, settings)).encode())
        for name, tensor in self.model.state_dict().items():
            if isinstance(tensor, Tensor):
                digest.update(name.encode() + _bytes(tensor))
        for batch in self.batches:
            for tensor in tensors((batch.args, batch.kwargs, batch.targets)):
                digest.update(_bytes(tensor))
        return digest.hexdigest()[:12]


@dataclass(frozen=True)
class _OfOutputAlone:
    """A loss of the output alone, called as all others are."""

    function: LossFunction

    def __call__(self, output: Any, targets: Any) -> Any:
        return self.function(output)


def sample_count(batch: Batch) -> int:
    """Samples of `batch`; 1 where an input relates samples to each other."""
    return batch.size or 1


def _sources(batches: Any, max_batches: int | None) -> Iterable[Any]:
    if isinstance(batches, DataLoader):
        return first_batches(batches, sys.maxsize if max_batches is None else max_batches)
    is_list_of_tensors = isinstance(batches, list) and batches and all(isinstance(part, Tensor) for part in batches)
    if isinstance(batches, (tuple, Mapping, Tensor)) or is_list_of_tensors:
        whole = isinstance(batches, tuple) and batches and all(_is_batch(part) for part in batches)
        return list(batches)[:max_batches] if whole else [batches]
    return list(islice(iter(batches), max_batches))


def _is_batch(part: Any) -> bool:
    """Whether a part of a tuple is a batch by itself: (inputs, targets), or a dict."""
    return isinstance(part, Mapping) or (isinstance(part, (tuple, list)) and len(part) == 2 and bool(tensors(part)))


def _cast(batch: Batch, dtype: torch.dtype | None) -> Batch:
    return batch.mapped(lambda t: t.to(dtype) if dtype is not None and t.is_floating_point() else t)


def _hits(outputs: Any, labels: Tensor | None) -> tuple[int, int]:
    """How many labels have the largest output, of how many; (0, 0) where they are no class labels."""
    found = tensors(outputs)
    if len(found) != 1 or labels is None or labels.is_floating_point() or found[0].dim() < 2:
        return 0, 0
    scores = found[0]
    if scores.shape[:1] + scores.shape[2:] != labels.shape or scores.shape[1] < 2:
        return 0, 0
    return int((scores.argmax(1) == labels).sum()), labels.numel()


def _bytes(tensor: Tensor) -> bytes:
    dense = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
    return dense.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes() if dense.numel() else b""
