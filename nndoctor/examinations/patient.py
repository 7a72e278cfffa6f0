"""Who is examined: model, loss, batch and optimizer as they were handed over, and copies of them to work on."""

from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nndoctor.checkup_results import ExaminationVerdict
from nndoctor.discovery import DROPOUTS, unwrap
from nndoctor.examinations.hidden import hidden_modules
from nndoctor.examinations.trees import mapped, named_tensors, tensors
from nndoctor.examinations.untouched import copied
from nndoctor.findings import Fix
from nndoctor.probes.graph import LossGraph

LossFunction = Callable[..., Any]
ANSWERS = ("labels", "label", "targets", "target")
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
SMALL = 8
"""Samples of the batch that is learnt by heart; so few that any model which learns at all can."""


class NotExaminable(Exception):
    """An examination cannot be made, or means nothing here; the text says why."""


@dataclass(frozen=True)
class Outcome:
    """What one examination says; the checkup adds its name and duration. Fields as those of ``Examination``."""

    verdict: ExaminationVerdict
    message: str
    diagnosis: str | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    fix: Fix | None = None


@dataclass(frozen=True)
class Batch:
    """What a model is called with and what the loss compares with.

    Args:
        args, kwargs: the model is called with these.
        targets: second argument of the loss; None where the loss is in the output of the model.
        axis: dimension along which the samples lie.
        axis_known: whether that was said, or follows from the shapes; else it is the usual guess.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    targets: Any = None
    axis: int = 0
    axis_known: bool = False

    @property
    def inputs(self) -> list[tuple[str, Tensor]]:
        """Every tensor that the model is called with, but for the answers among the keywords, with its name."""
        known = {key: value for key, value in self.kwargs.items() if key not in ANSWERS}
        alone = len(self.args) == 1 and isinstance(self.args[0], Tensor)
        positional = [("inputs" if alone else f"input {name}", t) for name, t in named_tensors(self.args)]
        return [*positional, *named_tensors(known)]

    @property
    def answers(self) -> Tensor | None:
        """The tensor that outputs are compared with; None where it is not known, or not one."""
        for key in ANSWERS:
            if isinstance(self.kwargs.get(key), Tensor):
                return torch.as_tensor(self.kwargs[key])
        found = tensors(self.targets)
        return found[0] if len(found) == 1 else None

    @property
    def size(self) -> int | None:
        """How many samples it has; None where an input relates samples to each other, as in a graph."""
        shapes = [t.shape for _, t in self.inputs if t.dim() > self.axis]
        if not shapes or self.relates_samples:
            return None
        return int(shapes[0][self.axis])

    @property
    def relates_samples(self) -> bool:
        """Whether an input says which samples belong together: an adjacency matrix, or a list of edges."""
        return bool(self.relations)

    @property
    def relations(self) -> list[Tensor]:
        """The inputs that say which samples belong together."""
        found = [t for _, t in self.inputs]
        if not found or found[0].dim() == 0:
            return []
        count = found[0].shape[0]
        return [
            t
            for t in found[1:]
            if t.layout != torch.strided
            or (t.dim() == 2 and t.shape == (count, count) and count > 1)
            or (t.dim() == 2 and t.shape[0] == 2 != count and not t.is_floating_point())
        ]

    def first(self, count: int) -> Batch:
        """The first `count` samples, or all where there are no more."""
        return self if self.size is None or count >= self.size else self.part(0, count)

    def part(self, start: int, count: int) -> Batch:
        """`count` samples from `start` on, of everything that has as many entries as there are samples."""
        size, axis = self.size, self.axis

        def cut(tensor: Tensor) -> Tensor:
            along = axis if tensor.dim() > axis and tensor.shape[axis] == size else 0
            has_samples = tensor.dim() > along and tensor.shape[along] == size
            return tensor.narrow(along, start, count) if has_samples else tensor

        return self.mapped(cut)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The same with every tensor, targets included, replaced."""
        return replace(self.with_inputs(function, answers=True), targets=mapped(function, self.targets))

    def with_inputs(self, function: Callable[[Tensor], Tensor], *, answers: bool = False) -> Batch:
        """The same with the tensors that the model reads replaced; answers among the keywords only with `answers`."""
        kwargs = {
            key: value if key in ANSWERS and not answers else mapped(function, value) for key, value in self.kwargs.items()
        }
        return replace(self, args=mapped(function, self.args), kwargs=kwargs)


@dataclass
class Trial:
    """Copies of model, loss and optimizer that an examination may do with as it likes."""

    model: nn.Module
    loss_function: LossFunction | None
    optimizer: torch.optim.Optimizer | None
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    def modules(self) -> Iterator[nn.Module]:
        """Every module of the model, those too that it keeps where torch does not look."""
        yield from self.model.modules()
        for hidden in hidden_modules(self.model):
            yield from hidden.module.modules()

    def outputs(self, batch: Batch) -> Any:
        with self.autocast():
            return self.model(*batch.args, **batch.kwargs)

    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        """The loss of `outputs` as one number on the device. Raises TypeError if there is none."""
        with self.autocast():
            found = outputs if self.loss_function is None else self.loss_function(outputs, batch.targets)
        loss = loss_among(found)
        if loss is None:
            where = "the model's output" if self.loss_function is None else "what loss_fn returned"
            raise TypeError(f"expected one number as the loss in {where}, got {_described(found)}")
        return loss.reshape(())

    def parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter that trains, by name; those of a loss module come as ``loss.<name>``."""
        found = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        if isinstance(self.loss_function, nn.Module):
            known = {id(p) for p in found.values()}
            own = self.loss_function.named_parameters()
            found |= {f"loss.{name}": p for name, p in own if p.requires_grad and id(p) not in known}
        return found

    def without_dropout(self) -> Trial:
        """Itself, after switching every dropout off that is a module or a module's setting."""
        for module in self.modules():
            if isinstance(module, DROPOUTS):
                module.eval()
            elif isinstance(module, (nn.MultiheadAttention, nn.RNNBase)):
                module.dropout = 0.0
        return self


def loss_among(found: Any) -> Tensor | None:
    """The loss in what a loss function or a model returned: the number itself, ``.loss``, ``["loss"]``, or the first of several."""
    if isinstance(found, Mapping) and "loss" in found:
        found = found["loss"]
    elif isinstance(getattr(found, "loss", None), Tensor):
        found = found.loss
    elif isinstance(found, (tuple, list)) and found:
        found = found[0]
    return found if isinstance(found, Tensor) and found.numel() == 1 else None


def _described(thing: Any) -> str:
    return f"a tensor of shape {tuple(thing.shape)}" if isinstance(thing, Tensor) else f"a {type(thing).__name__}"


@dataclass
class Patient:
    """What is examined. Nothing in here is ever run or written: :meth:`trial` gives copies for that.

    Args:
        model, loss_function, optimizer: the user's own.
        batches: one batch or more, the first is the one that is looked at.
        causal: whether positions may see earlier ones only; None: decide by targets that are shifted inputs.
        padding_index: the token that pads sequences; None: what the embedding of the tokens says.
        seconds: time that all of it may take.
        started: ``time.perf_counter()`` when it began.
        unknown_loss: why the loss cannot be computed again; empty where it can.
        seen_loss, seen_graph: a loss that the user's own code has computed, and its graph.
        autocast: what the model runs under.
        notes: numbers that one examination leaves for later ones, such as a learning rate that works.
    """

    model: nn.Module
    loss_function: LossFunction | None
    batches: tuple[Batch, ...]
    optimizer: torch.optim.Optimizer | None = None
    causal: bool | None = None
    padding_index: int | None = None
    seconds: float = float("inf")
    started: float = field(default_factory=time.perf_counter)
    unknown_loss: str = ""
    seen_loss: Tensor | None = None
    seen_graph: LossGraph | None = None
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    notes: dict[str, float] = field(default_factory=dict)

    @property
    def batch(self) -> Batch:
        return self.batches[0]

    @property
    def generator(self) -> torch.Generator:
        """A generator of our own for noise and directions; always starts at the same place."""
        return torch.Generator().manual_seed(0)

    def needs_loss(self) -> None:
        """Raises NotExaminable where the loss cannot be computed again."""
        if self.unknown_loss:
            raise NotExaminable(self.unknown_loss)

    def seconds_left(self) -> float:
        return self.started + self.seconds - time.perf_counter()

    def trial(self, *, train: bool = True) -> Trial:
        """Fresh copies. In training mode the parts that the user keeps in eval mode stay so."""
        model, loss, optimizer = copied(self.model, self.loss_function, self.optimizer)
        trial = Trial(model, loss, optimizer, self.autocast)
        if not train:
            for module in trial.modules():
                module.eval()
        elif not model.training:
            model.train()  # handed over in eval mode, as Hugging Face models come
        return trial

    def small_batch(self) -> Batch:
        """At most eight samples, or the whole batch where samples cannot be taken apart."""
        return self.batch.first(SMALL)


def read_batches(source: Any, loss_function: LossFunction | None, axis: int | None) -> tuple[Batch, ...]:
    """The batches in what the user hands over as ``batch``; of a loader the first four.

    Raises:
        TypeError: there is no tensor in it.
    """
    if isinstance(source, DataLoader):
        found = tuple(read_batch(batch, loss_function, 0 if axis is None else axis) for batch in first_batches(source, 4))
        if not found:
            raise TypeError("expected a batch, got a DataLoader that is empty")
        return found
    return (read_batch(source, loss_function, axis),)


def first_batches(loader: DataLoader[Any], count: int) -> list[Any]:
    """The first batches of a pass over `loader`, made in this process; its samplers stay where they are.

    A data set that hands out one shared stream loses what is read here.
    """
    keep = {id(loader.dataset): loader.dataset}
    options: dict[str, Any] = {"collate_fn": loader.collate_fn, "generator": torch.Generator().manual_seed(0)}
    if loader.batch_sampler is not None:
        options["batch_sampler"] = copy.deepcopy(loader.batch_sampler, keep)
    else:
        options["batch_size"] = loader.batch_size
        if not isinstance(loader.dataset, torch.utils.data.IterableDataset):
            options["sampler"] = copy.deepcopy(loader.sampler, keep)
    return list(islice(iter(DataLoader(loader.dataset, **options)), count))


def read_batch(source: Any, loss_function: LossFunction | None, axis: int | None) -> Batch:
    """One batch as the user hands it over: (inputs, targets), (a, b, targets), a dict of keywords, or inputs alone."""
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = {}
    targets: Any = None
    if isinstance(source, (tuple, list)) and len(source) >= 2:
        *inputs, targets = source
        only = inputs[0]
        if len(inputs) == 1 and isinstance(only, Mapping):
            args, kwargs = (), dict(only)
        elif len(inputs) == 1 and isinstance(only, (tuple, list)):
            args = tuple(only)
        else:
            args = tuple(inputs)
    elif isinstance(source, Mapping):
        args, kwargs, targets = (), dict(source), dict(source)
    else:
        inside = source[0] if isinstance(source, (tuple, list)) and source else source
        args, targets = (inside,), inside
    if not tensors((args, kwargs)):
        raise TypeError(
            f"expected (inputs, targets), a dict of keyword inputs, a DataLoader or a tensor, got {_described(source)} without a tensor in it"
        )
    if loss_function is None:
        targets = None
    return placed(Batch(args, kwargs, targets), axis)


def placed(batch: Batch, axis: int | None) -> Batch:
    """`batch` with the dimension along which its samples lie, from the shapes of inputs and targets."""
    if axis is not None:
        return replace(batch, axis=axis, axis_known=True)
    answers = batch.answers
    found = [t for _, t in batch.inputs if t.dim() > 0]
    if answers is None or answers.dim() == 0 or not found or batch.relates_samples:
        return batch
    shape = found[0].shape
    if answers.shape[0] == shape[0]:
        also_second = len(shape) > 1 and answers.dim() > 1 and answers.shape[1] == shape[1]
        return replace(batch, axis_known=not also_second)
    if len(shape) > 1 and answers.shape[0] == shape[1]:
        return replace(batch, axis=1, axis_known=True)
    return batch


def takes_output_alone(loss_function: LossFunction) -> bool:
    """Whether a loss is to be called as ``loss_fn(output)``, because a second argument has no place in it."""
    try:
        call = loss_function.forward if isinstance(loss_function, nn.Module) else loss_function
        parameters = list(inspect.signature(call).parameters.values())
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) == 1 and not any(p.kind is p.VAR_POSITIONAL for p in parameters)


def described_model(model: nn.Module) -> str:
    return type(unwrap(model)).__name__
