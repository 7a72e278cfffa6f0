"""Whether a few samples can be learnt by heart, and whether their inputs are needed for it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nndoctor.examinations.patient import Batch, NotExaminable, Outcome, Patient, Trial
from nndoctor.examinations.rehearsal import Rehearsal, loss_for
from nndoctor.examinations.untouched import seed_generators
from nndoctor.findings import Fix

STEPS = 80
FEWEST_STEPS = 20
SHARE = 0.25
"""Of the time of the whole checkup, for all attempts of one examination."""
RATES = (3e-3, 3e-4, 3e-2)
"""Of Adam, tried one after the other until one fits."""
LEARNT = 0.5
"""Share of the first loss below which the samples count as being learnt; losses with a floor (a VAE's) never reach 0."""
UNLEARNT = 0.9
"""Share above which nothing was learnt. Healthy models of a dozen kinds end at 0.0 to 0.6 after 80 steps."""
NO_BETTER = 0.98
"""Loss with real inputs over that with zeros, above which a batch that was learnt owes nothing to them. Healthy models: 0.0 to 0.7."""


@dataclass(frozen=True)
class Fit:
    """How a loss went while a small batch was fitted, and the fitted copy; ``rate`` is None for the user's own optimizer."""

    losses: tuple[float, ...]
    rate: float | None
    name: str
    trial: Trial

    @property
    def start(self) -> float:
        return self.losses[0]

    @property
    def end(self) -> float:
        """Mean of the last three losses; infinite where one is not finite."""
        last = self.losses[-3:]
        return sum(last) / len(last) if all(map(math.isfinite, self.losses)) else math.inf

    @property
    def left(self) -> float:
        """Share of the first loss that is left; losses below zero are likelihoods, which have no such share."""
        return self.end / self.start if self.start > 0 and self.end > 0 else (0.0 if self.end < self.start else 1.0)


def descend(
    trial: Trial,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[], Tensor],
    before_step: Callable[[int], None] | None = None,
) -> Iterator[float]:
    """Train the copies, one optimizer step per value: the loss before that step.

    Gradients are asked for and set by hand: ``backward()`` would add to whatever else the loss holds on to.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]

    def closure() -> float:
        with torch.enable_grad():
            loss = loss_of()
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, found, strict=True):
            parameter.grad = gradient
        return float(loss.detach())

    step = 0
    while True:
        if before_step is not None:
            before_step(step)
        if isinstance(optimizer, torch.optim.LBFGS):
            yield float(optimizer.step(closure))  # type: ignore[no-untyped-call]
        else:
            value = closure()
            optimizer.step()
            yield value
        step += 1


def fit(patient: Patient, batch: Batch, rate: float | None, steps: int, deadline: float) -> Fit:
    """Fit `batch` with Adam at `rate`, or with a copy of the user's optimizer as it stands, until it is learnt or time is up."""
    seed_generators(0)
    trial = patient.trial().without_dropout()
    optimizer = trial.optimizer
    if rate is not None or optimizer is None:
        optimizer = adam(trial, rate or RATES[0])
    losses: list[float] = []
    for value in descend(trial, optimizer, lambda: loss_for(trial, batch)):
        losses.append(value)
        learnt = value < 0.02 * losses[0] and losses[0] > 0
        if len(losses) > steps or not math.isfinite(value) or learnt or time.perf_counter() > deadline:
            break
    name = type(optimizer).__name__ if rate is None else f"Adam at {rate:g}"
    return Fit(tuple(losses), rate, name, trial)


def adam(trial: Trial, rate: float) -> torch.optim.Optimizer:
    """Adam over every parameter that trains; sparse gradients are made dense for it."""
    tables = [m for m in trial.model.modules() if getattr(m, "sparse", False) is True]
    for table in tables:
        setattr(table, "sparse", False)  # noqa: B010
    parameters: list[Any] = list(trial.parameters().values())
    if not parameters:
        raise NotExaminable("no parameter asks for a gradient")
    return torch.optim.Adam(parameters, lr=rate)


def examine_overfit(patient: Patient, rehearsal: Rehearsal) -> Iterator[Outcome]:
    """The user's own optimizer first, then Adam at three rates: one of them should learn eight samples."""
    patient.needs_loss()
    if not rehearsal.has_graph:
        raise NotExaminable("the loss has no gradient")
    batch, steps, deadline = _affordable(patient, rehearsal)
    fits: list[Fit] = []
    for rate in (*((None,) if patient.optimizer is not None else ()), *RATES):
        fits.append(fit(patient, batch, rate, steps, deadline))
        if fits[-1].left < LEARNT or time.perf_counter() > deadline:
            break
    best = min(fits, key=lambda f: f.left)
    patient.notes["fit_end"], patient.notes["fit_steps"] = best.end, float(len(best.losses))
    if best.rate is not None:
        patient.notes["fit_rate"] = best.rate
    patient.notes["fit_left"] = best.left
    yield _judged(patient, fits, best, batch, complete=len(best.losses) >= steps)


def _judged(patient: Patient, fits: list[Fit], best: Fit, batch: Batch, *, complete: bool) -> Outcome:
    numbers = {"start": best.start, "end": best.end, "steps": float(len(best.losses) - 1)}
    samples = f"{batch.size} samples" if batch.size else "the batch"
    told = f"loss {best.start:.4g} to {best.end:.3g} in {len(best.losses) - 1} steps on {samples} ({best.name})"
    own = fits[0] if fits[0].rate is None else None
    if best.left < LEARNT or best.start < 1e-6:
        slow = f"; {own.name} as it is set: {own.start:.3g} to {own.end:.3g}" if own is not None and own is not best else ""
        return Outcome("passed", told + slow, values=numbers)
    if not complete and best.left > UNLEARNT:
        return Outcome("not examined", f"{told}; there was no time for more", values=numbers)
    if best.left > UNLEARNT:
        return Outcome(
            "failed",
            f"{told}: nothing is learnt, at any of {len(fits)} settings tried",
            None,
            numbers,
            fix=Fix("Look at the other examinations first; then at labels, activations and initialisation"),
        )
    return Outcome("passed", f"{told}; it falls, slowly or to a floor", values=numbers)


def _affordable(patient: Patient, rehearsal: Rehearsal) -> tuple[Batch, int, float]:
    """A batch that works, how many steps there is time for, and until when. Raises NotExaminable for too few."""
    batch = patient.small_batch()
    trial = patient.trial()
    started = time.perf_counter()
    try:
        loss_for(trial, batch)
    except Exception:
        batch = patient.batch  # forward() or the loss has the size of the batch written into it
    step = max(3 * (time.perf_counter() - started), 1e-4)
    available = min(SHARE * patient.seconds, patient.seconds_left())
    steps = int(min(STEPS, available / step))
    if steps < FEWEST_STEPS:
        raise NotExaminable(f"{FEWEST_STEPS} steps of about {step:.2g} s were needed, {max(0.0, available):.1f} s were left")
    return batch, steps, time.perf_counter() + available


def examine_inputs_matter(patient: Patient, rehearsal: Rehearsal) -> Iterator[Outcome]:
    """The same fit with zeros in place of the inputs must come out worse, and know zeros from the inputs afterwards."""
    patient.needs_loss()
    if "fit_left" not in patient.notes:
        raise NotExaminable("no batch was fitted to compare with")
    batch, _, deadline = _affordable(patient, rehearsal)
    if (batch.size or 2) < 2:
        raise NotExaminable("one sample can be fitted without inputs")
    steps, real, left = int(patient.notes["fit_steps"]), patient.notes["fit_end"], patient.notes["fit_left"]
    blind = fit(patient, without_content(batch), patient.notes.get("fit_rate"), steps, deadline)
    if not math.isfinite(blind.end):
        raise NotExaminable("with zeros in place of the inputs the loss is not finite")
    numbers = {"real": real, "zeros": blind.end}
    told = f"loss {real:.3g} with the inputs, {blind.end:.3g} with zeros in their place, after {steps} steps"
    fix = Fix("Follow the inputs through forward(): dead units, a constant, or a wrong variable take their place")
    if not _depends_on_inputs(blind.trial, batch):
        yield Outcome("failed", f"{told}: the model does not use its inputs", None, numbers, fix=fix)
        return
    if left > UNLEARNT:
        raise NotExaminable("the batch could not be fitted with its real inputs")
    if len(blind.losses) < steps and blind.left > 0.02:
        raise NotExaminable("there was no time for it")
    if blind.left < 0.05:
        raise NotExaminable(f"the targets of this batch are all alike: they can be fitted without inputs ({told})")
    if real > NO_BETTER * blind.end and real > 0 and left < LEARNT:
        yield Outcome("warning", f"{told}: the inputs are used, but not needed", None, numbers, fix=fix)
    else:
        yield Outcome("passed", told, values=numbers)


@torch.no_grad()
def _depends_on_inputs(trial: Trial, batch: Batch) -> bool:
    """Whether a model that has been trained for a while gives another loss for zeros than for the inputs.

    A fresh one need not: its last layer may start at zero.
    """
    for module in trial.modules():
        module.eval()
    losses = []
    for shown in (batch, without_content(batch)):
        seed_generators(0)
        losses.append(float(loss_for(trial, shown)))
    return abs(losses[0] - losses[1]) > 1e-6 * max(abs(losses[0]), abs(losses[1]))


def without_content(batch: Batch) -> Batch:
    """The batch with zeros for numbers and the first token for tokens; masks, graphs and answers stay."""
    kept = {id(relation) for relation in batch.relations}

    def emptied(tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.bool or id(tensor) in kept:
            return tensor
        if tensor.is_floating_point():
            return torch.zeros_like(tensor)
        binary = bool(((tensor == 0) | (tensor == 1)).all())
        return tensor if binary else torch.full_like(tensor, int(tensor.flatten()[0]))

    return batch.with_inputs(emptied)
