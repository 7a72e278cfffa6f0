"""One forward and backward pass on a copy, and everything that later examinations want to know about it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nndoctor.discovery import NORMALISATIONS
from nndoctor.examinations.hidden import HiddenModule, hidden_modules
from nndoctor.examinations.patient import Batch, Patient, Trial
from nndoctor.examinations.trees import mapped, named_tensors, tensors
from nndoctor.probes.graph import LossGraph, walk
from nndoctor.probes.nodes import SHAPE_ONLY

PREDICTIONS = ("logits", "prediction_logits", "last_hidden_state")
"""What the predictions are called in the outputs of Hugging Face models, where there are several tensors."""


@dataclass(frozen=True)
class Call:
    """One call of a module that has no children, in the order of calls.

    Args:
        name: of the module.
        parameters: names of its own parameters.
        needed: whether an input required a gradient; None where no input is a floating-point tensor.
        gives: whether an output required a gradient.
        arriving: first floating-point input, without history; kept for layers with a weight matrix only.
        normalises: whether the module is a normalisation.
        embeds: whether it looks up embeddings.
    """

    name: str
    parameters: tuple[str, ...]
    needed: bool | None
    gives: bool
    arriving: Tensor | None
    normalises: bool
    embeds: bool


@dataclass(frozen=True)
class Rehearsal:
    """What one pass in training mode showed.

    Args:
        loss: its value.
        has_graph: whether the loss can be differentiated at all.
        graph: what the graph of the loss tells; None without a graph.
        outputs: what the model returned, without history.
        prediction: the tensor in it that the loss is made of, None where there is none.
        ends_with: name of the last autograd node of the prediction that is no reshaping.
        grads: norm of the gradient of every parameter that trains, None where the loss does not reach it.
        calls: calls of modules without children.
        hidden: modules that the model keeps where torch does not look.
        warned: what Python warned of on the way.
        seconds: how long it took.
    """

    loss: float
    has_graph: bool
    graph: LossGraph | None
    outputs: Any
    prediction: Tensor | None
    ends_with: str
    grads: Mapping[str, float | None]
    calls: tuple[Call, ...]
    hidden: tuple[HiddenModule, ...]
    warned: tuple[str, ...]
    seconds: float


def rehearse(patient: Patient) -> Rehearsal:
    """Run the batch forward and backward once on a copy. Raises whatever the user's code raises.

    Where the loss cannot be computed again, what is known of the user's own takes its place.
    """
    trial = patient.trial()
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught, calls_noted(trial.model) as calls:
        warnings.simplefilter("always")
        outputs = trial.outputs(patient.batch)
        loss = patient.seen_loss if patient.unknown_loss else trial.loss(outputs, patient.batch)
    assert loss is not None
    hidden = tuple(hidden_modules(trial.model))
    parameters = trial.parameters() | {p.name: p.parameter for module in hidden for p in module.parameters}
    prediction = prediction_among(outputs)
    grads = _reached(patient, parameters) if patient.unknown_loss else gradient_norms(loss, parameters)
    return Rehearsal(
        loss=float(loss.detach()),
        has_graph=loss.requires_grad,
        graph=patient.seen_graph or (walk(loss) if loss.grad_fn is not None else None),
        outputs=mapped(lambda t: t.detach(), outputs),
        prediction=None if prediction is None else prediction.detach(),
        ends_with="" if prediction is None else last_operation(prediction),
        grads=grads,
        calls=tuple(calls),
        hidden=hidden,
        warned=tuple(str(item.message) for item in caught),
        seconds=time.perf_counter() - started,
    )


def _reached(patient: Patient, parameters: Iterable[str]) -> dict[str, float | None]:
    """NaN for each parameter of the user's model that the graph of the user's loss reaches, None for the others."""
    own = dict(patient.model.named_parameters())
    reached = patient.seen_graph.reached if patient.seen_graph is not None else frozenset()
    return {name: float("nan") if name in own and id(own[name]) in reached else None for name in parameters}


def gradient_norms(loss: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, float | None]:
    """Norm of the gradient of `loss` for each of `parameters`, None where it does not reach; keeps the graph.

    Nothing is added to anybody's ``.grad``: the loss may hold parameters of the user's own model.
    """
    if not loss.requires_grad or not parameters:
        return dict.fromkeys(parameters)
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, retain_graph=True)
    return {
        name: None if gradient is None else float(_dense(gradient).norm()) for name, gradient in zip(parameters, found, strict=True)
    }


def _dense(gradient: Tensor) -> Tensor:
    return (gradient.to_dense() if gradient.layout != torch.strided else gradient).detach().float()


def prediction_among(outputs: Any) -> Tensor | None:
    """The floating-point tensor in `outputs` that holds the predictions; the first one that is no single number."""
    found = [(name, t) for name, t in named_tensors(outputs) if t.is_floating_point() and t.dim() > 0]
    by_name = dict(found)
    for name in PREDICTIONS:
        if name in by_name:
            return by_name[name]
    return next((t for name, t in found if t.numel() > 1 and name != "loss"), None)


def last_operation(tensor: Tensor) -> str:
    """Name of the autograd node that made the values of `tensor`, behind any reshaping."""
    node: Any = tensor.grad_fn
    while node is not None and type(node).__name__ in SHAPE_ONLY and node.next_functions:
        node = node.next_functions[0][0]
    return "" if node is None else type(node).__name__


@contextmanager
def calls_noted(model: nn.Module) -> Iterator[list[Call]]:
    """Every call of a module without children while the context lasts, hidden modules included."""
    calls: list[Call] = []
    names = {id(module): name for name, module in model.named_modules()}
    names |= {id(found.module): found.name for found in hidden_modules(model)}
    hidden_inside = {
        id(inner): f"{found.name}.{name}" for found in hidden_modules(model) for name, inner in found.module.named_modules() if name
    }
    names = hidden_inside | names
    handles = []
    for key, module in _by_id(model, names).items():
        if not any(True for _ in module.children()) or any(True for _ in module.parameters(recurse=False)):
            handles.append(module.register_forward_hook(_Noter(names[key], calls), with_kwargs=True))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _by_id(model: nn.Module, names: Mapping[int, str]) -> dict[int, nn.Module]:
    found = {id(module): module for module in model.modules()}
    for hidden in hidden_modules(model):
        found |= {id(inner): inner for inner in hidden.module.modules()}
    return {key: module for key, module in found.items() if key in names}


@dataclass(frozen=True)
class _Noter:
    name: str
    calls: list[Call]

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        real = [t for t in tensors((args, kwargs)) if t.is_floating_point()]
        weight = any(p.dim() >= 2 for p in module.parameters(recurse=False))
        embeds = isinstance(module, (nn.Embedding, nn.EmbeddingBag))
        self.calls.append(
            Call(
                name=self.name,
                parameters=tuple(f"{self.name}.{n}" if self.name else n for n, _ in module.named_parameters(recurse=False)),
                needed=any(t.requires_grad for t in real) if real else None,
                gives=any(t.requires_grad for t in tensors(output)),
                arriving=real[0].detach() if real and weight and not embeds else None,
                normalises=isinstance(module, NORMALISATIONS),
                embeds=embeds,
            )
        )


def loss_for(trial: Trial, batch: Batch) -> Tensor:
    """Forward pass and loss in one."""
    return trial.loss(trial.outputs(batch), batch)
