"""Learning-rate range test: the rate rises over a few dozen steps, and the loss tells where it learns and where it diverges.

Smith 2017, Cyclical Learning Rates for Training Neural Networks (https://arxiv.org/abs/1506.01186), section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np

from nndoctor.examinations.fitting import adam, descend
from nndoctor.examinations.patient import NotExaminable, Outcome, Patient
from nndoctor.examinations.rehearsal import Rehearsal, loss_for
from nndoctor.examinations.untouched import seed_generators
from nndoctor.findings import Fix

STEPS = 70
FEWEST_STEPS = 30
LOWEST, HIGHEST = 1e-6, 10.0
SMOOTHING = 0.8
DIVERGED = 2.0
"""Times the first loss, at which a rate counts as one that diverges."""
OWN_STEPS = 25
# Sweep over seven models, Adam and SGD, five rates each, one batch. Rates that train well leave 0.01 to 0.7 of the first loss
# and never go above 8 times it; at ten to a hundred times as much, the loss goes to 40 times and more on the way, ends at
# 0.96 with every unit dead, or at infinity.
PEAK = 20.0
"""Times the first loss, above which a rate has diverged, wherever it ends."""
STUCK, FALLS = 0.9, 0.5
"""Share of the first loss left with the user's rate at least, and with the suggested one at most, for a warning."""


@dataclass(frozen=True)
class Sweep:
    """Rates and the losses before the steps made with them; ``diverged_at`` is None where no rate did."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    diverged_at: float | None


def examine(patient: Patient, rehearsal: Rehearsal) -> Iterator[Outcome]:
    """A rate to start with, and whether the user's own one diverges."""
    patient.needs_loss()
    if not rehearsal.has_graph:
        raise NotExaminable("the loss has no gradient")
    available = patient.seconds_left() * 0.7
    steps = int(min(STEPS, available / max(1.5 * rehearsal.seconds, 1e-4)))
    if steps < FEWEST_STEPS:
        raise NotExaminable(f"{FEWEST_STEPS} steps of about {rehearsal.seconds:.2g} s were needed, {max(0.0, available):.1f} s were left")
    found = sweep(patient, steps)
    steepest, suggested = suggestion(found)
    own = _own_rate(patient)
    numbers = {"suggested": suggested, "steepest": steepest, "floor": LOWEST}
    if found.diverged_at is not None:
        numbers["diverged"] = found.diverged_at
    name = type(patient.optimizer).__name__ if patient.optimizer is not None else "Adam"
    edge = f"diverged at {found.diverged_at:.2g}" if found.diverged_at is not None else f"no rate up to {found.rates[-1]:.2g} diverged"
    told = f"start with {_rounded(suggested):g} ({name}: steepest at {steepest:.2g}, {edge})"
    if own is None:
        yield Outcome("passed", told, values=numbers)
        return
    numbers["own"] = own
    if own > 3 * suggested:
        numbers["own_left"], numbers["own_peak"] = _course(patient, 1.0)
        numbers["suggested_left"], _ = _course(patient, suggested / own)
        diverges = max(numbers["own_left"] / DIVERGED, numbers["own_peak"] / PEAK) > 1 and numbers["suggested_left"] < 1
        if diverges or (numbers["own_left"] >= STUCK and numbers["suggested_left"] <= FALLS):
            yield _too_high(numbers, told)
            return
    yield Outcome("passed", f"{told}; yours is {own:g}", values=numbers)


def _too_high(numbers: dict[str, float], told: str) -> Outcome:
    own, left, peak = numbers["own"], numbers["own_left"], numbers["own_peak"]
    return Outcome(
        "failed" if left > DIVERGED or peak > PEAK else "warning",
        f"in {OWN_STEPS} steps at lr={own:g} the loss goes up to {peak:.3g} times its start and ends at {left:.3g} times, "
        f"at {_rounded(numbers['suggested']):g} it ends at {numbers['suggested_left']:.2g} times; {told}",
        "learning-rate-too-high",
        numbers,
        fix=Fix("Lower the learning rate", {"lr": _rounded(numbers["suggested"])}, "high", "safe"),
    )


def _own_rate(patient: Patient) -> float | None:
    if patient.optimizer is None:
        return None
    rate = patient.optimizer.param_groups[0].get("lr")
    return None if rate is None else float(rate)


def sweep(patient: Patient, steps: int) -> Sweep:
    """Train a copy while the rate rises by a constant factor per step, until the loss has doubled or ``steps`` are over."""
    seed_generators(0)
    trial = patient.trial()
    optimizer = trial.optimizer if trial.optimizer is not None else adam(trial, LOWEST)
    base = [float(group.get("lr", 1.0)) or 1.0 for group in optimizer.param_groups]
    rates = np.geomspace(LOWEST, HIGHEST, steps)
    batches = cycle(patient.batches)

    def set_rate(step: int) -> None:
        for group, own in zip(optimizer.param_groups, base, strict=True):
            group["lr"] = float(rates[min(step, steps - 1)]) * own / base[0]

    losses: list[float] = []
    for value in descend(trial, optimizer, lambda: loss_for(trial, next(batches)), set_rate):
        losses.append(value)
        if _has_diverged(losses) or len(losses) >= steps or patient.seconds_left() < 0:
            break
    diverged = float(rates[max(0, len(losses) - 2)]) if _has_diverged(losses) else None
    return Sweep(tuple(float(r) for r in rates[: len(losses)]), tuple(losses), diverged)


def _has_diverged(losses: Sequence[float]) -> bool:
    scale = abs(losses[0]) + 1e-12
    return not math.isfinite(losses[-1]) or losses[-1] - losses[0] > (DIVERGED - 1) * scale


def suggestion(found: Sweep) -> tuple[float, float]:
    """Rate of steepest descent of the smoothed loss over the logarithm of the rate, and what to start with.

    To start with: that rate, but at most a tenth of the one that diverged (a rate that survives one step
    need not survive a thousand).
    """
    finite = [value for value in found.losses if math.isfinite(value)]
    if len(finite) < 10:
        rate = (found.diverged_at or found.rates[-1]) / 10
        return rate, rate
    smooth = smoothed(finite)
    slope = np.gradient(smooth)
    lowest = int(np.argmin(smooth))
    steepest = found.rates[int(np.argmin(slope[: max(lowest, 2)]))]
    limit = found.diverged_at / 10 if found.diverged_at is not None else found.rates[lowest] / 10
    return steepest, min(steepest, limit)


def smoothed(losses: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Exponential moving average, corrected for its start at zero."""
    average, out = 0.0, np.empty(len(losses))
    for index, value in enumerate(losses):
        average = SMOOTHING * average + (1 - SMOOTHING) * value
        out[index] = average / (1 - SMOOTHING ** (index + 1))
    return out


def _course(patient: Patient, factor: float) -> tuple[float, float]:
    """Median of the last losses, and the largest loss, over the first, in a few steps with the user's optimizer.

    Args:
        factor: what its rates are multiplied by.
    """
    seed_generators(0)
    trial = patient.trial()
    if trial.optimizer is None:
        return 1.0, 1.0
    for group in trial.optimizer.param_groups:
        group["lr"] *= factor
    batches = cycle(patient.batches)
    losses: list[float] = []
    for value in descend(trial, trial.optimizer, lambda: loss_for(trial, next(batches))):
        losses.append(value)
        if len(losses) > OWN_STEPS or not math.isfinite(value) or patient.seconds_left() < 0:
            break
    if not math.isfinite(losses[-1]):
        return math.inf, math.inf
    if losses[0] <= 0:
        return 1.0, 1.0
    return sorted(losses[-5:])[len(losses[-5:]) // 2] / losses[0], max(losses) / losses[0]


def _rounded(rate: float) -> float:
    """One significant digit, as people write rates."""
    return float(f"{rate:.0e}")
