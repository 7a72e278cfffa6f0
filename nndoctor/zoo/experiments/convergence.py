"""Claims about layers that converge one after the other, and about freezing those that have."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from nndoctor.lab import Patient
from nndoctor.lab.freezing import FreezeBySchedule, FreezeBySimilarity, Freezer
from nndoctor.lab.representation import Activations, activations, similarity
from nndoctor.zoo.experiments.adam import TINY_VGG
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
from nndoctor.zoo.experiments.fitting import fit, matrices, rank_correlation
from nndoctor.zoo.experiments.images import Images
from nndoctor.zoo.experiments.works import DIEDERICHSEN_FINAL
from nndoctor.zoo.models import Vgg

THRESHOLD = 0.99
EPOCHS = 8
FREEZING_EPOCHS = 6
PROBES = 500
RATES = (0.1, 0.5)


def probe_patient(model: nn.Module, images: Images) -> Patient:
    """`model` with fixed test images to look at its layers with."""
    return Patient.of(model, F.cross_entropy, images.first(0, PROBES).test_batches())


def self_similarities(seed: int, images: Images) -> Measured:
    """Similarity (SVCCA) of every layer of a tiny VGG to itself one epoch earlier, with two learning rates."""
    numbers: dict[str, float] = {}
    curves: dict[str, Curve] = {}
    for rate in RATES:
        torch.manual_seed(seed)
        model = Vgg(images.channels, plan=TINY_VGG)
        layers = tuple(matrices(model))
        found = _followed(model, torch.optim.SGD(model.parameters(), lr=rate), images.first(3072), seed, layers)
        converged = [first_reached(found[layer]) for layer in layers]
        numbers[f"first converged epoch of conv1 at {rate:g}"] = converged[0]
        numbers[f"rank correlation of depth and convergence at {rate:g}"] = rank_correlation(range(len(layers)), converged)
        numbers[f"layers converged at {rate:g}"] = sum(epoch <= EPOCHS for epoch in converged) / len(layers)
        numbers[f"mean similarity in the last epoch at {rate:g}"] = statistics.fmean(found[layer][-1] for layer in layers)
        numbers[f"lowest late similarity at {rate:g}"] = min(min(found[layer][EPOCHS // 2 :]) for layer in layers)
        for number, layer in enumerate(layers, start=1):
            label = f"conv{number}" if number < len(layers) else "classifier"
            curves[f"{rate:g}: {label}"] = curve(range(1, EPOCHS + 1), found[layer])
    return Measured(numbers, curves)


def _followed(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Images, seed: int, layers: tuple[str, ...]
) -> dict[str, list[float]]:
    patient = probe_patient(model, images)
    found: dict[str, list[float]] = {layer: [] for layer in layers}

    def looked() -> dict[str, Activations]:
        with patient.examined() as subject:
            return {each.name: each for each in activations(subject, layers=layers)}

    before = looked()

    def compare(epoch: int) -> None:
        nonlocal before
        present = looked()
        for layer in layers:
            value = similarity(before[layer], present[layer], "svcca")
            found[layer].append(value if math.isfinite(value) else 0.0)
        before = present

    fit(model, optimizer, images, batch_size=128, epochs=EPOCHS, seed=seed, after_epoch=compare)
    return found


def first_reached(values: Sequence[float], threshold: float = THRESHOLD) -> int:
    """The first epoch, from 1, with a similarity of `threshold` or more; one more than there are where none has it."""
    return next((epoch for epoch, value in enumerate(values, start=1) if value >= threshold), len(values) + 1)


@dataclass
class NamedOnly(Freezer):
    """Freezes as the published code did: an attribute on the module, which torch does not know there; nothing happens."""

    model: nn.Module
    names: list[str] = field(default_factory=list)

    @property
    def frozen(self) -> tuple[str, ...]:
        return tuple(self.names)

    def freeze(self, *names: str) -> None:
        for name in names:
            module: Any = self.model.get_submodule(name)
            for _ in module.parameters():
                module.requires_grad = False
            self.names += [name] if name not in self.names else []


def freezing(seed: int, images: Images) -> Measured:
    """The same training without freezing, with the published freezing, with real freezing, and by schedule."""
    numbers: dict[str, float] = {}
    curves: dict[str, Curve] = {}
    reached: dict[str, dict[str, torch.Tensor]] = {}
    for arm in ("none", "as published", "by similarity", "by schedule"):
        torch.manual_seed(seed)
        model = Vgg(images.channels, plan=TINY_VGG)
        layers = tuple(matrices(model))
        freezer = NamedOnly(model) if arm == "as published" else Freezer(model, batch_norm="eval")
        frozen_by_epoch: list[float] = []

        update = _updater(arm, freezer, probe_patient(model, images), layers)

        def after(epoch: int, update: Callable[[int], None] = update, freezer: Freezer = freezer, seen: list[float] = frozen_by_epoch) -> None:
            update(epoch)
            seen.append(len(freezer.frozen))

        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        fitted = fit(model, optimizer, images.first(1600), batch_size=64, epochs=FREEZING_EPOCHS, seed=seed, after_epoch=after)
        numbers[f"accuracy, {arm}"] = fitted.accuracy
        numbers[f"layers frozen, {arm}"] = frozen_by_epoch[-1]
        numbers[f"mean epoch of freezing, {arm}"] = statistics.fmean(FREEZING_EPOCHS - count for count in _waiting(frozen_by_epoch, len(layers) - 1))
        curves[f"frozen: {arm}"] = curve(range(1, FREEZING_EPOCHS + 1), frozen_by_epoch)
        reached[arm] = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    same = all(torch.equal(tensor, reached["as published"][name]) for name, tensor in reached["none"].items())
    numbers["as published is bit-identical to none"] = float(same)
    return Measured(numbers, curves)


def _updater(arm: str, freezer: Freezer, patient: Patient, layers: tuple[str, ...]) -> Callable[[int], None]:
    if arm == "none":
        return lambda epoch: None
    if arm == "by schedule":
        schedule = FreezeBySchedule(freezer, FREEZING_EPOCHS, layers)
        return lambda epoch: void(schedule.update(epoch))
    rule = FreezeBySimilarity(freezer, patient, layers[:-1], threshold=THRESHOLD)
    rule.update()  # the initial weights, so that the first epoch can be compared
    return lambda epoch: void(rule.update())


def void(result: object) -> None:
    """Take no notice of a result."""


def _waiting(frozen: Sequence[float], layers: int) -> list[float]:
    """For each layer that may be frozen, the epochs at the end during which it was."""
    return [sum(count > number for count in frozen) for number in range(layers)]


def judge_bottom_up(runs: Sequence[Measured]) -> Judgement:
    ranks = [run["rank correlation of depth and convergence at 0.1"] for run in runs]
    first = [run["first converged epoch of conv1 at 0.1"] for run in runs]
    told = ", ".join("none" if math.isnan(rank) else f"{rank:+.2f}" for rank in ranks)
    reason = f"depth and first converged epoch correlate by {told}; conv1 converged after {', '.join(_epoch(epoch) for epoch in first)}"
    return agreed([rank > 0.5 and epoch <= 5 for rank, epoch in zip(ranks, first, strict=True)], reason)


def _epoch(value: float) -> str:
    return f"{value:g} epochs" if value <= EPOCHS else f"more than {EPOCHS} epochs"


def judge_high_rate(runs: Sequence[Measured]) -> Judgement:
    low, high = "layers converged at 0.1", "layers converged at 0.5"
    reason = (
        f"{mean(runs, low):.0%} of the layers converge at 0.1 and {mean(runs, high):.0%} at 0.5; the last epoch's similarity is "
        f"{mean(runs, 'mean similarity in the last epoch at 0.1'):.3f} and {mean(runs, 'mean similarity in the last epoch at 0.5'):.3f}"
    )
    return agreed([run[high] < run[low] for run in runs], reason)


def judge_freezing(runs: Sequence[Measured]) -> Judgement:
    """An artefact where the published freezing is no freezing; what the real one does is told."""
    gaps = [100 * (run["accuracy, by similarity"] - run["accuracy, none"]) for run in runs]
    scheduled = [100 * (run["accuracy, by schedule"] - run["accuracy, none"]) for run in runs]
    identical = sum(run["as published is bit-identical to none"] for run in runs)
    early = "mean epoch of freezing, by similarity", "mean epoch of freezing, by schedule"
    harmless = statistics.fmean(gaps) > -1
    reason = (
        f"frozen as published, {mean(runs, 'layers frozen, as published'):.1f} layers are called frozen and the weights are those of no freezing to the last bit "
        f"({identical:g} of {len(runs)} seeds). Real freezing by similarity changes accuracy by {statistics.fmean(gaps):+.1f} points "
        f"({min(gaps):+.1f} to {max(gaps):+.1f}; {mean(runs, 'layers frozen, by similarity'):.1f} layers, after {mean(runs, early[0]):.1f} epochs on average), by schedule by "
        f"{statistics.fmean(scheduled):+.1f} points (after {mean(runs, early[1]):.1f} epochs)"
    )
    if runs and identical == len(runs) and mean(runs, "layers frozen, as published") > 0:
        real = "does no harm either" if harmless else "does harm: with it the claim is contradicted"
        return Judgement("artefact", f"{reason}; the real one {real}.")
    return agreed([gap > -1 and run[early[0]] < run[early[1]] for gap, run in zip(gaps, runs, strict=True)], reason)


SIMILARITY = Protocol(
    "self-similarity",
    "A VGG-11 with batch normalisation and an eighth of the channels, SGD at 0.1 and 0.5, 3072 images, batches of 128, 8 epochs; after each, SVCCA (99 % of the variance) of every "
    "convolution and the classifier with themselves one epoch earlier, on 500 test images.",
    "cifar10",
    self_similarities,
)
FREEZING = Protocol(
    "freezing",
    "The same network, SGD at 0.1, 1600 images, batches of 64, 6 epochs, four times: without freezing; freezing by similarity above 0.99 as the published code does it; really; and really by a schedule "
    "(layer i of n after i / n of the epochs). Convolutions are frozen; the norms behind them go on.",
    "cifar10",
    freezing,
)

EXPERIMENTS = (
    Experiment(
        "E16", "Layers converge from the bottom up",
        "By self-similarity layers converge bottom up; the first convolution has converged within five epochs.",
        f"{DIEDERICHSEN_FINAL}, 3.5",
        "The rank correlation of depth and the first epoch with a similarity of 0.99 is above 0.5 (a layer that never has it counts as one epoch more than there were), and conv1 has it within 5 epochs.",
        SIMILARITY, judge_bottom_up,
        ("rank correlation of depth and convergence at 0.1", "first converged epoch of conv1 at 0.1", "layers converged at 0.1", "mean similarity in the last epoch at 0.1"),
        Plot("epoch", "similarity to one epoch earlier", ("0.1",), limits=(THRESHOLD,)),
        "The figure shows the order all the same: from the second epoch on similarity falls with depth. The first epoch with 0.99 does not measure it: most layers never have it in so few epochs, and deep ones have it in the first, while hardly any gradient reaches them yet.",
    ),
    Experiment(
        "E17", "Freezing what has converged does no harm",
        "Freezing layers by self-similarity does not hurt accuracy, and freezes earlier than a schedule.",
        f"{DIEDERICHSEN_FINAL}, 3.5",
        "An artefact, if freezing as published leaves the weights of no freezing to the last bit while layers are called frozen. Real freezing: accuracy within 1 point over five seeds, earlier than the schedule, else the claim is contradicted.",
        FREEZING, judge_freezing,
        (
            *(f"accuracy, {arm}" for arm in ("none", "as published", "by similarity", "by schedule")),
            "layers frozen, as published", "layers frozen, by similarity", "mean epoch of freezing, by similarity", "mean epoch of freezing, by schedule",
        ),
        Plot("", "accuracy", numbers=tuple(f"accuracy, {arm}" for arm in ("none", "as published", "by similarity", "by schedule"))),
        "Why: the published code walks over the parameters of a layer and sets `requires_grad` on the layer itself, once for each. A module has no such switch; torch takes it as a new attribute, and "
        "every parameter goes on training. The layers are also dropped from the plot of similarities, so nobody could see it. The published accuracy \"with freezing\" is that of no freezing, and could not have come out lower. Accuracies of the real freezing are to be read with the spread between seeds in mind.",
        seeds=(0, 1, 2, 3, 4),
    ),
    Experiment(
        "E18", "At a rate of 0.5 layers do not converge",
        "With a learning rate of 0.5 most layers never converge, and their self-similarity is unstable.",
        f"{DIEDERICHSEN_FINAL}, 3.5",
        "A smaller share of the layers reaches a similarity of 0.99 at 0.5 than at 0.1.",
        SIMILARITY, judge_high_rate,
        tuple(f"{what} at {rate:g}" for what in ("layers converged", "mean similarity in the last epoch", "lowest late similarity") for rate in RATES),
        Plot("epoch", "similarity to one epoch earlier", ("0.5",), limits=(THRESHOLD,)),
        "With so few epochs neither rate lets most layers converge; the mean similarity says more than the count.",
    ),
)  # fmt: skip
