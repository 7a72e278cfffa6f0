"""Claims about the ratio of update to weight, and about learning rates that follow it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from scipy import stats
from torch import Tensor, nn
from torch.optim import Optimizer

from nndoctor.lab.schedules import TARGET, FixedRatioSGD, ListingRatioLR, RatioMeter, RecursiveRatioLR
from nndoctor.zoo.experiments.experiment import (
    Curve,
    Experiment,
    Judgement,
    Measured,
    Plot,
    Protocol,
    agreed,
    curve,
    mean,
)
from nndoctor.zoo.experiments.fitting import CHANCE_LOSS, Fitted, fit, linear_correlation, rank_correlation, smoothed
from nndoctor.zoo.experiments.images import Images
from nndoctor.zoo.experiments.works import DIEDERICHSEN
from nndoctor.zoo.models import AlexNetMini, PathNet

RATES = (0.01, 0.05, 0.1)
LATE = 500
"""Step from which on the work looks for a relation of ratio and progress."""


@dataclass(frozen=True)
class Ratios:
    """The mean ratio over the weight matrices at every step of a training."""

    values: tuple[float, ...]
    fitted: Fitted


def followed(model: nn.Module, optimizer: Optimizer, images: Images, *, batch_size: int, steps: int, seed: int) -> Ratios:
    meter = RatioMeter(optimizer)
    found: list[float] = []

    def note(step: int, loss: float) -> None:
        ratios = meter.take()
        found.append(statistics.fmean(ratios) if ratios else math.nan)

    fitted = fit(model, optimizer, images, batch_size=batch_size, steps=steps, seed=seed, after_step=note)
    meter.detach()
    return Ratios(tuple(found), fitted)


def _by_rate(seed: int, images: Images, kind: Callable[..., Optimizer]) -> dict[float, Ratios]:
    found = {}
    for rate in RATES:
        torch.manual_seed(seed)
        model = PathNet(images.channels)
        found[rate] = followed(model, kind(model.parameters(), lr=rate), images.first(6400), batch_size=64, steps=600, seed=seed)
    return found


def sgd_ratios(seed: int, images: Images) -> Measured:
    """Update-to-weight ratios with SGD at three learning rates, from the same weights on the same batches."""
    numbers: dict[str, float] = {}
    curves: dict[str, Curve] = {}
    for rate, found in _by_rate(seed, images, torch.optim.SGD).items():
        ratios, losses = found.values, found.fitted.losses
        smooth = smoothed(ratios)
        gains = [before - after for before, after in zip(losses[LATE:-1], losses[LATE + 1 :], strict=True)]
        numbers[f"first ratio at {rate:g}"] = ratios[0]
        numbers[f"median ratio at {rate:g}"] = statistics.median(ratios)
        numbers[f"decades from 0.001 at {rate:g}"] = abs(math.log10(statistics.median(ratios) / TARGET))
        numbers[f"rank correlation of ratio and step at {rate:g}"] = rank_correlation(range(len(ratios)), ratios)
        numbers[f"fall of the ratio at {rate:g}"] = statistics.median(ratios[:25]) / smooth[-1]
        numbers[f"correlation with the loss decrease at {rate:g}"] = linear_correlation(ratios[LATE:-1], gains)
        numbers[f"final loss at {rate:g}"] = found.fitted.final_loss
        numbers[f"accuracy at {rate:g}"] = found.fitted.accuracy
        curves[f"ratio: {rate:g}"] = curve(range(len(ratios)), ratios)
        curves[f"loss: {rate:g}"] = curve(range(len(losses)), losses)
        curves[f"late: {rate:g}"] = (ratios[LATE:-1:3], tuple(gains[::3]))
    return Measured(numbers, curves)


def adam_ratios(seed: int, images: Images) -> Measured:
    """The same with Adam, beside SGD at the same rates."""
    numbers: dict[str, float] = {}
    curves: dict[str, Curve] = {}
    for rate, found in _by_rate(seed, images, torch.optim.Adam).items():
        numbers[f"Adam, first 10 steps, at {rate:g}"] = statistics.median(found.values[:10])
        numbers[f"Adam, after step 500, at {rate:g}"] = statistics.median(found.values[LATE:])
        numbers[f"final loss at {rate:g}"] = found.fitted.final_loss
        curves[f"Adam: {rate:g}"] = curve(range(len(found.values)), found.values)
    for rate, found in _by_rate(seed, images, torch.optim.SGD).items():
        numbers[f"SGD, first 10 steps, at {rate:g}"] = statistics.median(found.values[:10])
        numbers[f"SGD, after step 500, at {rate:g}"] = statistics.median(found.values[LATE:])
        curves[f"SGD: {rate:g}"] = curve(range(len(found.values)), found.values)
    return Measured(numbers, curves)


SCHEDULES: dict[str, Callable[[Optimizer], object] | None] = {
    "constant": None,
    "listing": ListingRatioLR,
    "equation 3.8": RecursiveRatioLR,
}


def schedules(seed: int, images: Images) -> Measured:
    """A constant rate against both ratio schedules, for a high and a low rate, small and large batches."""
    numbers = {}
    for rate, batch in ((0.5, 128), (0.05, 1024), (0.05, 128)):
        for name, build in SCHEDULES.items():
            torch.manual_seed(seed)
            model = AlexNetMini(images.channels)
            optimizer = torch.optim.SGD(model.parameters(), lr=rate)
            scheduler = build(optimizer) if build is not None else None

            def advance(step: int, loss: float, scheduler: object = scheduler) -> None:
                if isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler):
                    scheduler.step()

            fitted = fit(model, optimizer, images.first(3072), batch_size=batch, epochs=8, seed=seed, after_step=advance)
            numbers[f"{name}, {rate:g}, batch {batch}"] = fitted.accuracy
    return Measured(numbers)


def fixed_ratio(seed: int, images: Images) -> Measured:
    """SGD at 0.1 against updates that are always a thousandth of the weights."""
    numbers: dict[str, float] = {}
    curves = {}
    builds: dict[str, Callable[[nn.Module], Optimizer]] = {
        "SGD": lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
        "fixed ratio": lambda model: FixedRatioSGD(model.parameters(), TARGET),
    }
    for name, build in builds.items():
        torch.manual_seed(seed)
        model = AlexNetMini(images.channels)
        fitted = fit(model, build(model), images.first(4096), batch_size=128, epochs=10, seed=seed)
        numbers[f"accuracy, {name}"] = fitted.accuracy
        numbers[f"final loss, {name}"] = fitted.final_loss
        curves[f"loss: {name}"] = curve(range(len(fitted.losses)), fitted.losses)
    return Measured(numbers, curves)


BASES = (0.01, 0.1)


def listing_identity(seed: int, images: Images) -> Measured:
    """The listed schedule from two base rates, on real gradients and on random numbers instead of gradients."""
    numbers: dict[str, float] = {}
    curves = {}
    for landscape in ("real", "random"):
        for name, build in (("listing", ListingRatioLR), ("equation 3.8", RecursiveRatioLR)):
            found = [_followed_rates(seed, images, base, build, random=landscape == "random") for base in BASES]
            rates, ratios = ([high / low for high, low in zip(*(run[i] for run in reversed(found)), strict=True)] for i in (0, 1))
            products = [rate * ratio for rate, ratio in zip(rates, ratios, strict=True)]
            label = f"{name}, {landscape} gradients"
            numbers[f"rates x, {label}"] = statistics.median(rates[-50:])
            numbers[f"ratios x, {label}"] = statistics.median(ratios[-50:])
            numbers[f"largest deviation of the product from 10, {label}"] = max(abs(product / 10 - 1) for product in products)
            curves[f"product: {label}"] = curve(range(len(products)), products)
    return Measured(numbers, curves)


def _followed_rates(
    seed: int, images: Images, base: float, build: type[ListingRatioLR] | type[RecursiveRatioLR], *, random: bool
) -> tuple[list[float], list[float]]:
    """The rate after each step and the smoothed mean ratio that it was made from."""
    torch.manual_seed(seed)
    model = PathNet(images.channels)
    optimizer = torch.optim.SGD(model.parameters(), lr=base)
    scheduler = build(optimizer, max_factor=1e9)
    noise = torch.Generator().manual_seed(seed)
    if random:
        for parameter in model.parameters():
            parameter.register_hook(partial(_instead, generator=noise))  # type: ignore[no-untyped-call]
    rates: list[float] = []
    ratios: list[float] = []

    def advance(step: int, loss: float) -> None:
        scheduler.step()
        rates.append(float(optimizer.param_groups[0]["lr"]))
        ratios.append(scheduler.mean_ratio or math.nan)

    fit(model, optimizer, images.first(6400), batch_size=64, steps=120, seed=seed, after_step=advance)
    return rates, ratios


def _instead(gradient: Tensor, generator: torch.Generator) -> Tensor:
    """Random numbers in place of a gradient."""
    return torch.randn(gradient.shape, generator=generator)


def decay(seed: int, images: Images) -> Measured:
    """A constant rate of 0.2 against one that falls by 2 % each epoch."""
    numbers = {}
    for name, factor in (("constant", 1.0), ("decayed", 0.98)):
        torch.manual_seed(seed)
        model = AlexNetMini(images.channels)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, factor)

        def advance(epoch: int, scheduler: torch.optim.lr_scheduler.LRScheduler = scheduler) -> None:
            scheduler.step()

        fitted = fit(model, optimizer, images.first(1024), batch_size=128, epochs=30, seed=seed, after_epoch=advance)
        numbers[f"accuracy, {name}"] = fitted.accuracy
        numbers[f"final loss, {name}"] = fitted.final_loss
    numbers["gain by decay"] = numbers["accuracy, decayed"] - numbers["accuracy, constant"]
    return Measured(numbers)


def judge_decays(runs: Sequence[Measured]) -> Judgement:
    def holds(run: Measured) -> bool:
        return all(run[f"rank correlation of ratio and step at {rate:g}"] < -0.5 and run[f"fall of the ratio at {rate:g}"] >= 3 for rate in RATES)

    falls = ", ".join(f"{mean(runs, f'fall of the ratio at {rate:g}'):.2g}" for rate in RATES)
    ranks = ", ".join(f"{mean(runs, f'rank correlation of ratio and step at {rate:g}'):+.2f}" for rate in RATES)
    return agreed([holds(run) for run in runs], f"at rates of {', '.join(f'{r:g}' for r in RATES)} the ratio falls by factors of {falls}, its rank correlation with the step is {ranks}")


def judge_proportional(runs: Sequence[Measured]) -> Judgement:
    factors = [run["first ratio at 0.1"] / run["first ratio at 0.01"] for run in runs]
    return agreed([abs(factor / 10 - 1) <= 0.01 for factor in factors], f"ten times the rate gives {min(factors):.5f} to {max(factors):.5f} times the first ratio")


def judge_nearest(runs: Sequence[Measured]) -> Judgement:
    def nearest(run: Measured) -> float:
        return min(RATES, key=lambda rate: run[f"decades from 0.001 at {rate:g}"])

    def fastest(run: Measured) -> float:
        return min(RATES, key=lambda rate: run[f"final loss at {rate:g}"])

    away = ", ".join(f"{mean(runs, f'decades from 0.001 at {rate:g}'):.2f} at {rate:g}" for rate in RATES)
    best = ", ".join(f"{rate:g} ({sum(fastest(run) == rate for run in runs)})" for rate in RATES if any(fastest(run) == rate for run in runs))
    return agreed([nearest(run) == min(RATES) for run in runs], f"the median ratio is {away} decades from 0.001; the lowest final loss came from {best}")


def judge_adam_ratios(runs: Sequence[Measured]) -> Judgement:
    def starts_higher(run: Measured) -> bool:
        return all(run[f"Adam, first 10 steps, at {rate:g}"] > 2 * run[f"SGD, first 10 steps, at {rate:g}"] for rate in RATES)

    def slope(run: Measured) -> float:
        high, low = (max(run[f"Adam, after step 500, at {rate:g}"], 1e-12) for rate in (0.1, 0.01))
        return math.log10(high / low)

    higher, slopes = sum(map(starts_higher, runs)), [slope(run) for run in runs]
    reason = (
        f"Adam starts above twice SGD's ratio at every rate with {higher} of {len(runs)} seeds; after step 500 ten times the rate "
        f"changes its ratio by {min(slopes):+.2f} to {max(slopes):+.2f} decades; final losses with Adam "
        + ", ".join(f"{mean(runs, f'final loss at {rate:g}'):.2f} at {rate:g}" for rate in RATES)
    )
    learnt = [sum(run[f"final loss at {rate:g}"] < 0.95 * CHANCE_LOSS for rate in RATES) for run in runs]
    if any(count < 2 for count in learnt):
        return Judgement("open", f"{reason}: where nothing is learnt (chance is {CHANCE_LOSS:.2f}) no update is left, and the slope says nothing.")
    return agreed([starts_higher(run) and slope(run) < 0 for run in runs], reason)


def judge_no_relation(runs: Sequence[Measured]) -> Judgement:
    found = [run[f"correlation with the loss decrease at {rate:g}"] for run in runs for rate in RATES]
    held = [all(abs(run[f"correlation with the loss decrease at {rate:g}"]) < 0.3 for rate in RATES) for run in runs]
    return agreed(held, f"ratio and loss decrease correlate by {min(found):+.2f} to {max(found):+.2f} after step {LATE}")


def judge_schedules(runs: Sequence[Measured]) -> Judgement:
    def gain(run: Measured, name: str, where: str) -> float:
        return run[f"{name}, {where}"] - run[f"constant, {where}"]

    high, tiny, good = "0.5, batch 128", "0.05, batch 1024", "0.05, batch 128"
    held = [gain(run, "listing", high) > 0 and gain(run, "listing", tiny) > 0 and gain(run, "listing", good) <= 0 for run in runs]
    parts = []
    for name in ("listing", "equation 3.8"):
        gains = ", ".join(f"{100 * statistics.fmean(gain(run, name, where) for run in runs):+.1f} at {where}" for where in (high, tiny, good))
        parts.append(f"{name}: {gains}")
    return agreed(held, f"points of accuracy against a constant rate, {'; '.join(parts)}")


def judge_fixed(runs: Sequence[Measured]) -> Judgement:
    gaps = [100 * (run["accuracy, SGD"] - run["accuracy, fixed ratio"]) for run in runs]
    return agreed([gap > 5 for gap in gaps], f"the fixed ratio ends {min(gaps):.1f} to {max(gaps):.1f} points below SGD")


def judge_identity(runs: Sequence[Measured]) -> Judgement:
    """An artefact where the product is 10 to rounding also without any landscape, and is not under the rule of the equation."""

    def worst(name: str, landscape: str) -> float:
        return max(run[f"largest deviation of the product from 10, {name}, {landscape} gradients"] for run in runs)

    real, random, other = worst("listing", "real"), worst("listing", "random"), worst("equation 3.8", "real")
    rates, ratios = mean(runs, "rates x, listing, real gradients"), mean(runs, "ratios x, listing, real gradients")
    reason = (
        f"rates x {rates:.2f}, ratios x {ratios:.2f}; the product is 10 at every step to {real:.0e}, with random numbers for gradients too "
        f"({random:.0e}), and not with equation 3.8 (off by up to {other:.0%})"
    )
    if max(real, random) < 1e-6 and other > 0.01:
        return Judgement("artefact", reason + ".")
    return agreed([abs(run["rates x, listing, real gradients"] / 5 - 1) < 0.2 for run in runs], reason)


def judge_decay(runs: Sequence[Measured]) -> Judgement:
    """A paired test over seeds; fewer than ten leave it open."""
    gains = [run["gain by decay"] for run in runs]
    if len(gains) < 10 or len(set(gains)) < 2:
        return Judgement("open", f"mean gain {100 * statistics.fmean(gains):+.2f} points over {len(gains)} seeds; ten are needed.")
    test = stats.ttest_1samp(gains, 0.0)
    p_more, p_less = ((float(test.pvalue) / 2 if sign * float(test.statistic) > 0 else 1 - float(test.pvalue) / 2) for sign in (1, -1))
    reason = f"mean gain {100 * statistics.fmean(gains):+.2f} points over {len(gains)} seeds, p = {p_more:.3f} (paired t, one-sided)."
    return Judgement("reproduced" if p_more < 0.05 else "contradicted" if p_less < 0.05 else "open", reason)


SGD_RATIOS = Protocol(
    "sgd-ratios",
    "SGD at 0.01, 0.05 and 0.1 from the same weights on the same batches: the nnvis network (a small LeNet), 6400 images, batches of 64, 600 steps (6 epochs). "
    "The ratio is the mean over weight matrices of |update| / |weights before it|.",
    "cifar10",
    sgd_ratios,
)
ADAM_RATIOS = Protocol(
    "adam-ratios", "As for SGD, with Adam at 0.01, 0.05 and 0.1, and SGD beside it.", "cifar10", adam_ratios
)
SCHEDULED = Protocol(
    "ratio-schedules",
    "AlexNetMini (25 682 parameters on colour images), SGD at 0.5 with batches of 128, at 0.05 with batches of 1024, at 0.05 with batches of 128: constant, the schedule as it is listed, and as equation 3.8 prints it; "
    "3072 images, 8 epochs, one run per seed where the work had 100 epochs and 5 runs.",
    "cifar10",
    schedules,
)
FIXED = Protocol("fixed-ratio", "AlexNetMini, 4096 images, batches of 128, 10 epochs: SGD at 0.1, and updates of 0.001 of every tensor.", "cifar10", fixed_ratio)
IDENTITY = Protocol(
    "listing-identity",
    "The nnvis network, batches of 64, 120 steps from base rates of 0.01 and 0.1, by the listed schedule and by equation 3.8; once with its gradients and once with "
    "normal random numbers in their place. No cap is reached.",
    "cifar10",
    listing_identity,
)
DECAYED = Protocol(
    "exponential-decay",
    "AlexNetMini, SGD at 0.2 constant and times 0.98 after each epoch; 1024 images, batches of 128, 30 epochs where the work had 100.",
    "cifar10",
    decay,
)

EXPERIMENTS = (
    Experiment(
        "E7", "SGD's ratio starts high and falls",
        "Under SGD the ratio of update to weight starts high and falls with the loss.",
        f"{DIEDERICHSEN}, 3.4",
        "At every rate the rank correlation of ratio and step is below -0.5, and the smoothed ratio falls to a third or less.",
        SGD_RATIOS, judge_decays,
        tuple(f"{what} at {rate:g}" for what in ("rank correlation of ratio and step", "fall of the ratio") for rate in RATES),
        Plot("step", "update / weight", ("ratio",), log_y=True),
        "This network has no normalisation: its gradients are small at first and grow when it begins to learn, and the ratio with them. The published curves are of a VGG with BatchNorm, so a high start is no property of SGD.",
    ),
    Experiment(
        "E8", "The first ratio is proportional to the rate",
        "Under SGD the initial ratio is proportional to the learning rate.",
        f"{DIEDERICHSEN}, 3.4",
        "From equal weights on one batch, ten times the rate gives 10 times the ratio, to 1 %.",
        SGD_RATIOS, judge_proportional,
        tuple(f"first ratio at {rate:g}" for rate in RATES),
        Plot("", "first ratio", numbers=tuple(f"first ratio at {rate:g}" for rate in RATES), log_y=True),
        "This must come out: the first update of plain SGD is rate times gradient. It shows that the measurement is right.",
    ),
    Experiment(
        "E9", "The smallest rate is nearest to 0.001",
        "The smallest of three rates has the ratio nearest to 0.001, and learns fastest.",
        f"{DIEDERICHSEN}, 3.4",
        "The median ratio of 0.01 is the nearest to 0.001, in decades; the order of speed is told.",
        SGD_RATIOS, judge_nearest,
        tuple(f"{what} at {rate:g}" for what in ("median ratio", "final loss", "accuracy") for rate in RATES),
        Plot("step", "loss", ("loss",)),
        "Nearest to 0.001 and fastest are two things: see which rate reached the lowest loss.",
    ),
    Experiment(
        "E10", "Adam's ratio starts higher, and turns around",
        "Adam's ratio is much higher than SGD's at first and falls to it; after 500 steps a higher rate means a lower ratio, the opposite of SGD.",
        f"{DIEDERICHSEN}, 3.4",
        "Over the first ten steps Adam's median ratio is more than twice SGD's at every rate, and after step 500 it is lower at 0.1 than at 0.01. Open where fewer than two of the rates learn anything.",
        ADAM_RATIOS, judge_adam_ratios,
        tuple(f"Adam, {when}, at {rate:g}" for when in ("first 10 steps", "after step 500") for rate in RATES)
        + tuple(f"SGD, {when}, at {rate:g}" for when in ("first 10 steps", "after step 500") for rate in RATES),
        Plot("step", "update / weight", ("Adam", "SGD"), log_y=True),
        "The published VGG did not converge with Adam at 0.1 either (E6), so its low ratio at high rates may have had the same cause.",
    ),
    Experiment(
        "E11", "The ratio does not tell progress",
        "There is no linear relation between ratio and decrease of the loss; 0.001 is nothing special.",
        f"{DIEDERICHSEN}, 3.4, conclusions",
        "After step 500 the correlation of a step's ratio with the decrease of the loss is below 0.3 in magnitude at every rate.",
        SGD_RATIOS, judge_no_relation,
        tuple(f"correlation with the loss decrease at {rate:g}" for rate in RATES),
        Plot("update / weight", "decrease of the loss", ("late",), log_x=True, scattered=True),
        "For this reason no rule of the doctor takes a ratio away from 0.001 for a verdict.",
    ),
    Experiment(
        "E12", "Ratio schedules mend bad rates",
        "The ratio schedule beats a constant rate that is needlessly high at small batches, or tiny at large ones, and does not beat a good one.",
        f"{DIEDERICHSEN}, figure 3.10",
        "The schedule as listed is more accurate at 0.5 with batches of 128 and at 0.05 with batches of 1024, and not at 0.05 with batches of 128. With three seeds the sign test alone could not be significant.",
        SCHEDULED, judge_schedules,
        tuple(f"{name}, {where}" for where in ("0.5, batch 128", "0.05, batch 1024", "0.05, batch 128") for name in SCHEDULES),
        Plot("", "accuracy", numbers=tuple(f"{name}, {where}" for where in ("0.5, batch 128", "0.05, batch 1024", "0.05, batch 128") for name in SCHEDULES)),
    ),
    Experiment(
        "E13", "A fixed ratio ends far worse",
        "Updates of a fixed ratio learn, but end far worse than SGD at 0.1.",
        f"{DIEDERICHSEN}, figure 3.7",
        "Accuracy is lower by more than 5 points.",
        FIXED, judge_fixed,
        ("accuracy, SGD", "accuracy, fixed ratio", "final loss, SGD", "final loss, fixed ratio"),
        Plot("step", "loss", ("loss",)),
        "A step of a thousandth of the weights never gets smaller near the minimum, and is small at the start.",
    ),
    Experiment(
        "E14", "Rates x 5, ratios x 2",
        "From base rates of 0.01 and 0.1, the schedule ends at rates that differ five times and ratios that differ only twice, which is surprising.",
        f"{DIEDERICHSEN}, figure 3.15",
        "An artefact, if the product of both factors is 10 to rounding at every step, and is so with random numbers in place of gradients, but not under the rule that is printed.",
        IDENTITY, judge_identity,
        tuple(
            f"{what}, {name}, {landscape} gradients"
            for name, landscape in (("listing", "real"), ("listing", "random"), ("equation 3.8", "real"))
            for what in ("rates x", "ratios x", "largest deviation of the product from 10")
        ),
        Plot("step", "product of both factors", ("product",), log_y=True, limits=(10.0,)),
        "Why: the listing sets rate = base rate * 0.001 / mean ratio, so rate * mean ratio = base rate * 0.001 whatever the ratio is. Between two base rates a factor of 10 apart the "
        "factors of rate and ratio always multiply to 10, as 5 and 2 do; how the 10 is split says how the ratio depends on the rate (with ratio = c * rate, sqrt(10) each). "
        "Nothing is learnt about the surprising part. Equation 3.8, which multiplies the rate it finds, has no such identity and takes both base rates to one rate.",
    ),
    Experiment(
        "E15", "Decay beats a constant rate of 0.2",
        "A rate that falls by 2 % each epoch beats a constant one of 0.2.",
        f"{DIEDERICHSEN}, figure 3.9",
        "Mean accuracy over ten seeds or more is higher, p < 0.05.",
        DECAYED, judge_decay,
        ("accuracy, constant", "accuracy, decayed", "gain by decay", "final loss, constant", "final loss, decayed"),
        Plot("", "accuracy", numbers=("accuracy, constant", "accuracy, decayed")),
        seeds=tuple(range(10)),
    ),
)  # fmt: skip
