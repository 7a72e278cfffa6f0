"""The checkup: every examination in turn, each guarded, all within a few seconds."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from nndoctor.checkup_results import Checkup, Examination
from nndoctor.discovery import unwrap, unwrap_optimizer
from nndoctor.examinations import (
    data,
    fitting,
    independence,
    learning_rate,
    loss,
    masks,
    modes,
    noise,
    optimizer,
    reach,
)
from nndoctor.examinations.patient import (
    NotExaminable,
    Outcome,
    Patient,
    described_model,
    read_batches,
    takes_output_alone,
)
from nndoctor.examinations.rehearsal import Rehearsal, rehearse
from nndoctor.examinations.untouched import generators_kept, seed_generators

Examine = Callable[[Patient, Rehearsal], Iterable[Outcome]]

AFTER: tuple[tuple[str, Examine], ...] = (
    ("scale of the inputs", data.examine_input_scale),
    ("scale of the targets", data.examine_target_scale),
    ("loss fits output and targets", loss.examine_contract),
    ("loss at the start", loss.examine_start),
    ("loss reaches every parameter", reach.examine),
    ("no module is hidden", reach.examine_hidden),
    ("samples are independent", independence.examine),
    ("no position sees later ones", masks.examine_causal),
    ("padding is masked", masks.examine_padding),
    ("padding is not in the loss", masks.examine_padded_loss),
    ("training and evaluation agree", modes.examine),
    ("one batch can be learnt by heart", fitting.examine_overfit),
    ("inputs matter", fitting.examine_inputs_matter),
    ("learning rate", learning_rate.examine),
    ("batch size", noise.examine),
)
"""Examinations that look at the forward and backward pass made before them; cheap ones first."""


def checkup(
    model: nn.Module,
    loss_fn: Callable[..., Any] | None,
    batch: Any,
    optimizer: object | None = None,
    *,
    causal: bool | None = None,
    padding_index: int | None = None,
    batch_axis: int | None = None,
    seconds: float = 10.0,
) -> Checkup:
    """Examine a model before it is trained: contracts of loss, graph, batch and masks, and what it can learn.

    Every examination works on copies: parameters, buffers, gradients, optimizer state, modes, hooks and random
    generators are afterwards what they were. An examination that cannot be made, or that raises, is reported as
    ``not examined`` with the reason; nothing is ever raised for it.

    Args:
        model: any module; wrappers such as DistributedDataParallel are looked through.
        loss_fn: called as ``loss_fn(output, targets)``; None where the output of the model holds the loss
            (``output.loss``, as Hugging Face models give it).
        batch: ``(inputs, targets)``, where inputs may be a tuple or a dict; ``(a, b, targets)`` for a model with
            two inputs; a dict of keywords (a loss_fn gets it whole as its targets); inputs alone, which are then the
            targets as well; or a DataLoader, of which the first four batches of a pass of its own are read.
        optimizer: the optimizer that will train the model, if there is one yet.
        causal: whether outputs may depend on earlier positions only; by default this is so where the targets are
            the inputs shifted by one.
        padding_index: token that pads the sequences; by default that of the model's embedding.
        batch_axis: dimension along which the samples lie; by default the first, unless the targets say otherwise.
        seconds: time that may be taken; what it is too short for is not examined.

    Returns:
        A Checkup: ``examinations``, ``passed``, ``diagnoses``, ``verdict``, ``exit_code``, ``to_dict()``.

    Raises:
        TypeError: `model` is no module, `optimizer` none of torch's, or there is no tensor in `batch`.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(8, 4), nn.Softmax(dim=1))
        >>> batch = torch.randn(16, 8), torch.randint(4, (16,))
        >>> checkup(model, nn.CrossEntropyLoss(), batch, seconds=2).diagnoses[0]  # the loss takes a softmax as well
        'double-softmax'
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(model).__name__}; the call is checkup(model, loss_fn, batch)")
    inner = None if optimizer is None else unwrap_optimizer(optimizer)
    started = time.perf_counter()
    with generators_kept(), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the model warns of, it will say again when it trains
        patient = Patient(
            model=unwrap(model),
            loss_function=_two_sided(loss_fn),
            batches=read_batches(batch, loss_fn, batch_axis),
            optimizer=inner,
            causal=causal,
            padding_index=padding_index,
            seconds=seconds,
            started=started,
        )
        return examine(patient)


def examine(patient: Patient) -> Checkup:
    """Make every examination of `patient`; random generators are left where the last one put them."""
    rehearsals: list[Rehearsal] = []
    found = _guarded("it runs", partial(_run_once, patient, rehearsals))
    grads = rehearsals[0].grads if rehearsals else None
    found += _guarded("devices and types", partial(data.examine_types, patient, ran=bool(rehearsals)))
    found += _guarded("the optimizer holds the parameters", partial(optimizer.examine, patient, grads))
    for name, after in AFTER:
        if rehearsals:
            found += _guarded(name, partial(after, patient, rehearsals[0]))
        else:
            found.append(Examination(name, "not examined", message="the model does not run"))
    return Checkup(tuple(found), time.perf_counter() - patient.started, facts(patient, rehearsals))


def _run_once(patient: Patient, rehearsals: list[Rehearsal]) -> Iterable[Outcome]:
    try:
        rehearsal = rehearse(patient)
    except Exception as error:
        first_line = (str(error).strip() or "no message").split("\n")[0]
        yield Outcome("failed", f"forward, loss or backward pass raised {type(error).__name__}: {first_line}")
        return
    rehearsals.append(rehearsal)
    yield Outcome("passed", f"forward and backward in {1000 * rehearsal.seconds:.0f} ms", values={"seconds": rehearsal.seconds})


def _guarded(name: str, make: Callable[[], Iterable[Outcome]]) -> list[Examination]:
    """What one examination says. Whatever it raises is its outcome; only an interrupt passes."""
    started = time.perf_counter()
    seed_generators(0)
    outcomes: list[Outcome] = []
    try:
        outcomes.extend(make())
        if not outcomes:
            outcomes.append(Outcome("not examined", "nothing to examine"))
    except NotExaminable as reason:
        outcomes.append(Outcome("not examined", str(reason)))
    except Exception as error:
        first_line = (str(error).strip() or "no message").split("\n")[0]
        outcomes.append(Outcome("not examined", f"{type(error).__name__}: {first_line}"))
    taken = time.perf_counter() - started
    return [_named(name, outcome, taken / len(outcomes)) for outcome in outcomes]


def _named(name: str, outcome: Outcome, seconds: float) -> Examination:
    return Examination(
        name, outcome.verdict, outcome.diagnosis, outcome.message, outcome.values, outcome.targets, outcome.fix, seconds
    )


def _two_sided(loss_fn: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """`loss_fn` as it is, unless it takes the output alone."""
    if loss_fn is None or isinstance(loss_fn, nn.Module) or not takes_output_alone(loss_fn):
        return loss_fn
    return lambda output, targets: loss_fn(output)


def facts(patient: Patient, rehearsals: list[Rehearsal]) -> dict[str, str]:
    """What was examined, for the head of the table."""
    parameters = list(patient.model.parameters())
    total = sum(p.numel() for p in parameters if not isinstance(p, nn.parameter.UninitializedParameter))
    shapes = [f"{name} {tuple(t.shape)}" for name, t in patient.batch.inputs]
    told = {
        "model": f"{described_model(patient.model)} with {total:,} parameters".replace(",", " "),
        "batch": ", ".join(shapes[:3]) + (f" and {len(shapes) - 3} more" if len(shapes) > 3 else ""),
    }
    graph = rehearsals[0].graph if rehearsals else None
    if graph is not None:
        told["loss"] = graph.kind
    if patient.optimizer is not None:
        rate = patient.optimizer.param_groups[0].get("lr")
        told["optimizer"] = type(patient.optimizer).__name__ + (f", lr={float(rate):g}" if rate is not None else "")
    if parameters:
        told["device"] = str(parameters[0].device)
    return told
