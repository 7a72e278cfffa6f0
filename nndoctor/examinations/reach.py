"""Whether the loss reaches every parameter that is to be trained, and where it is cut off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from nndoctor.examinations.hidden import HiddenModule
from nndoctor.examinations.patient import Batch, NotExaminable, Outcome, Patient
from nndoctor.examinations.rehearsal import Call, Rehearsal, calls_noted, gradient_norms, loss_for
from nndoctor.examinations.untouched import seed_generators
from nndoctor.findings import Fix

OTHER_BATCHES = 4
"""Passes with other inputs that are given to experts and branches which a batch may leave out."""


def examine(patient: Patient, rehearsal: Rehearsal) -> Iterator[Outcome]:
    """Parameters without a gradient: never used, or used and cut off. A gradient of zero is a gradient."""
    hidden = {p.name for module in rehearsal.hidden for p in module.parameters}
    registered = [name for name in rehearsal.grads if name not in hidden]
    if not registered:
        raise NotExaminable("no parameter of the model asks for a gradient")
    unreached = [name for name in registered if rehearsal.grads[name] is None]
    if not unreached:
        yield Outcome("passed", f"all {len(registered)} trainable parameters get a gradient", values={"parameters": float(len(registered))})
        return
    patient.needs_loss()
    unreached, routed = _never_reached(patient, unreached)
    unreached = _trained(patient, unreached)
    matters = _that_matter(patient, unreached)
    idle = [name for name in unreached if name not in matters]
    if matters:
        yield _cut(rehearsal, matters, len(registered))
    if idle and not routed:
        yield Outcome(
            "warning",
            f"{len(idle)} of {len(registered)} parameters change nothing in the loss: {_listed(idle)}",
            "unused-parameters",
            {"unused": float(len(idle)), "parameters": float(len(registered))},
            tuple(idle),
            Fix("Use these layers in forward(), or remove them"),
        )
    if not matters and (not idle or routed):
        rest = f"; {len(idle)} belong to branches that no input tried took" if idle else ", some only with other inputs"
        yield Outcome("passed", f"{len(registered) - len(idle)} trainable parameters get a gradient{rest}")


def _trained(patient: Patient, names: Sequence[str]) -> list[str]:
    """Those of `names` that an optimizer is to train; all of them where there is no optimizer.

    A teacher that only follows is reached by no loss, and handed to no optimizer.
    """
    if patient.optimizer is None:
        return list(names)
    held = {id(p) for group in patient.optimizer.param_groups for p in group["params"]}
    own = dict(patient.model.named_parameters())
    return [name for name in names if name not in own or id(own[name]) in held]


def _never_reached(patient: Patient, names: Sequence[str]) -> tuple[list[str], bool]:
    """Those of `names` that other inputs do not reach either, and whether the inputs decide which modules are called."""
    left, called = list(names), []
    for attempt in range(OTHER_BATCHES):
        trial = patient.trial()
        batch = _shaken(patient.batch, attempt)
        with calls_noted(trial.model) as calls:
            loss = loss_for(trial, batch)
        called.append(frozenset(call.name for call in calls))
        wanted = {name: p for name, p in trial.parameters().items() if name in left}
        norms = gradient_norms(loss, wanted)
        left = [name for name in left if norms.get(name) is None]
    return left, len(set(called)) > 1


def _shaken(batch: Batch, attempt: int) -> Batch:
    """`batch` with noise of growing size on its numbers, and its tokens in another order."""
    generator = torch.Generator().manual_seed(attempt)

    def shake(tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.bool or tensor.numel() < 2:
            return tensor
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator).to(tensor)
            return tensor + (1 + attempt) * tensor.std() * noise
        order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
        return tensor.flatten()[order].view_as(tensor)

    return batch if batch.relates_samples or len(batch.inputs) > 1 else batch.with_inputs(shake)


@torch.no_grad()
def _that_matter(patient: Patient, names: Sequence[str]) -> list[str]:
    """Those of `names` whose values the loss depends on: they are used, and their gradient is cut off.

    The parameters of one module are moved together: one pass per module.
    """
    still = _loss_with_moved(patient, ())
    owners: dict[str, list[str]] = {}
    for name in names:
        owners.setdefault(name.rpartition(".")[0], []).append(name)
    found: list[str] = []
    for group in owners.values():
        if patient.seconds_left() < 0:
            raise NotExaminable(f"no gradient reaches {_listed(names)}; there was no time left to find out why")
        if _loss_with_moved(patient, group) != still:
            found += group
    return found


def _loss_with_moved(patient: Patient, names: Sequence[str]) -> float:
    seed_generators(0)  # the same draws each time
    trial = patient.trial(train=False)
    parameters = trial.parameters()
    for name in names:
        parameter = parameters[name]
        noise = torch.randn(parameter.shape, generator=patient.generator).to(parameter)
        parameter.add_(noise * (1 + parameter.abs().mean()))
    return float(loss_for(trial, patient.batch))


def _cut(rehearsal: Rehearsal, names: Sequence[str], total: int) -> Outcome:
    last, first = _place(rehearsal.calls, names)
    if not rehearsal.has_graph:
        reach = "the loss has no gradient at all"
    else:
        reach = f"{len(names)} of {total} parameters change the loss but get no gradient from it"
    if last is not None and last.gives:
        where = f": it is cut behind {last.name or 'the model'}" + (f", before {first.name}" if first is not None else "")
    elif last is not None:
        where = f": {last.name or 'the model'} runs without gradients"
    else:
        where = f": {_listed(names)}"
    return Outcome(
        "failed",
        reach + where,
        "detached-graph",
        {"cut": float(len(names)), "parameters": float(total)},
        tuple(names),
        Fix("Remove detach(), .data, .item(), numpy() or no_grad() on the way from there to the loss", confidence="high"),
    )


def _place(calls: Sequence[Call], names: Sequence[str]) -> tuple[Call | None, Call | None]:
    """The last call whose own parameters are cut off, and the next one, which gets an input without history."""
    cut = set(names)
    where = [index for index, call in enumerate(calls) if cut & set(call.parameters)]
    if not where:
        return None, None
    following = (call for call in calls[where[-1] + 1 :] if call.needed is False)
    return calls[where[-1]], next(following, None)


def examine_hidden(patient: Patient, rehearsal: Rehearsal) -> Iterator[Outcome]:
    """Modules in lists, dicts or closures that the loss reaches, so they are meant to learn, and nobody trains or moves."""
    trained = [m for m in rehearsal.hidden if any(rehearsal.grads.get(p.name) is not None for p in m.parameters)]
    if not trained:
        kept = f"; {len(rehearsal.hidden)} kept aside get no gradient" if rehearsal.hidden else ""
        yield Outcome("passed", f"every module that learns is registered{kept}")
        return
    parameters = [p for module in trained for p in module.parameters]
    count = sum(p.parameter.numel() for p in parameters)
    holders = tuple(dict.fromkeys(f"{m.owner}.{m.attribute}" if m.owner else m.attribute for m in trained))
    yield Outcome(
        "failed",
        _hidden_message(trained, count),
        "unregistered-module",
        {"modules": float(len(trained)), "weights": float(count)},
        tuple(m.name for m in trained),
        Fix(f"Keep {', '.join(holders)} in nn.ModuleList, nn.ModuleDict or nn.ParameterList", confidence="high"),
    )


def _hidden_message(trained: Sequence[HiddenModule], count: int) -> str:
    names = _listed([module.name for module in trained])
    weights = f"{count:,}".replace(",", " ")
    return f"the loss reaches {names}, which parameters(), to(), train() and state_dict() do not see: {weights} weights"


def _listed(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
