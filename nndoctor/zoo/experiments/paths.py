"""Claims about the way from the initial weights to the trained ones, and about how much training and testing it takes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nndoctor.lab import Patient
from nndoctor.lab.directions import random_directions
from nndoctor.lab.paths import (
    ALPHAS,
    PathCurve,
    Paths,
    layer_paths,
    model_paths,
    parameter_paths,
    real_path,
    travelled_by_layer,
)
from nndoctor.lab.points import current_weights
from nndoctor.lab.preliminary import stability_study
from nndoctor.lab.shapes import compared
from nndoctor.lab.trail import Trail
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
from nndoctor.zoo.experiments.fitting import Fitted, fit
from nndoctor.zoo.experiments.images import Images
from nndoctor.zoo.experiments.works import NEMCOVA
from nndoctor.zoo.models import PathNet

LAYERS = ("conv1", "conv2", "fc1", "fc2", "fc3")
EPOCHS = 5
STOPS = 20
"""Pieces of the real path between checkpoints."""
OUTSIDE = (-0.5, 1.5)
TENTHS = tuple(index / 10 for index in range(11))


def nnvis_training(
    model: nn.Module, images: Images, epochs: int, seed: int, *, decay: float = 0.7, after_step: Any = None, after_epoch: Any = None
) -> Fitted:
    """Train as that work did: SGD at 0.01 with momentum 0.5, batches of 64, the rate times `decay` after each epoch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, decay)

    def advance(epoch: int) -> None:
        scheduler.step()
        if after_epoch is not None:
            after_epoch(epoch)

    return fit(model, optimizer, images, batch_size=64, epochs=epochs, seed=seed, after_step=after_step, after_epoch=advance)


def training_paths(seed: int, images: Images) -> Measured:
    """One training, and the loss on straight, curved and real paths of model, layers and single parameters."""
    torch.manual_seed(seed)
    model = PathNet(images.channels)
    steps = EPOCHS * (len(images.train_inputs) // 64)
    wanted = {round(index * steps / STOPS) for index in range(STOPS + 1)} | {steps // 2}
    kept: dict[int, dict[str, Tensor]] = {0: _copy(model)}
    trail = Trail(model)

    def note(step: int, loss: float) -> None:
        if (step + 1) % 3 == 0:
            trail.note(step + 1)
        if step + 1 in wanted:
            kept[step + 1] = _copy(model)

    fitted = nnvis_training(model, images, EPOCHS, seed, after_step=note)
    patient = Patient.of(model, nn.NLLLoss(), images.first(0, 1000).test_batches())
    first, middle = kept[0], kept[steps // 2]

    numbers: dict[str, float] = {"accuracy": fitted.accuracy}
    curves: dict[str, Curve] = {}
    whole = model_paths(patient, first, middle=middle)
    layers = layer_paths(patient, first, alphas=TENTHS)
    numbers |= _barriers(whole.of("model"))
    numbers |= _resets(layers)
    numbers |= _real(patient, whole, kept, curves)
    numbers |= _parameters(model, images, first, middle, seed)
    numbers |= _outside_layers(patient, first, middle)
    numbers |= _travelled(patient, first)
    numbers |= _planes(model, trail, seed, curves)
    for layer in LAYERS:
        path = layers.of(layer)
        curves[f"layer accuracy: {layer}"] = (path.alphas, tuple(float(value or 0.0) for value in path.accuracies))
    return Measured(numbers, curves)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in current_weights(model).items()}


def _barriers(path: PathCurve) -> dict[str, float]:
    gained = path.losses[0] - path.losses[-1]
    rises = [loss - min(path.losses[: index + 1]) for index, loss in enumerate(path.losses)]
    return {
        "largest rise along the line (share of the gain)": max(rises) / gained,
        "bulge above the straight connection (share of the gain)": path.barrier / gained,
    }


def _resets(layers: Paths) -> dict[str, float]:
    """Accuracy with one layer at its initial weights, and what is lost by it."""
    found: dict[str, float] = {}
    for layer in LAYERS:
        path = layers.of(layer)
        accuracies = [float(value or 0.0) for value in path.accuracies]
        found[f"accuracy with {layer} at init"] = accuracies[0]
        found[f"lost by {layer} at init"] = accuracies[-1] - accuracies[0]
    path = layers.of("conv1")
    found["conv1 at 0.1: accuracy against the final one"] = float(path.accuracies[1] or 0.0) - float(path.accuracies[-1] or 0.0)
    return found


def _real(patient: Patient, whole: Paths, kept: dict[int, dict[str, Tensor]], curves: dict[str, Curve]) -> dict[str, float]:
    """The straight and the curved path beside the optimizer's own, and beside one that no optimizer went."""
    steps = sorted(kept)
    real = real_path(patient, [kept[step] for step in steps], steps=steps)
    line, parabola = whole.of("model"), whole.of("model", "quadratic")
    found = compared(real, line, parabola)
    inner = [alpha for alpha in ALPHAS if 0.1 <= alpha <= 0.9 and abs(alpha - 0.5) > 0.11]
    straight, bent, own = (dict(zip(path.alphas, path.losses, strict=True)) for path in (line, parabola, real))
    at = {alpha: float(np.interp(alpha, real.alphas, real.losses)) for alpha in inner}
    nonsense = {name: torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0)).to(tensor) for name, tensor in kept[0].items()}
    invented = model_paths(patient, kept[0], middle=nonsense, alphas=(0.0, 0.5, 1.0)).of("model", "quadratic")
    jumping = real_path(patient, [kept[0], nonsense, patient.model])
    half = steps[-1] // 2 / steps[-1]
    for name, path in (("straight", line), ("parabola", parabola), ("real", real)):
        curves[f"path: {name}"] = (path.alphas, path.losses)
    return {
        "the line meets the real path at": found.linear_meets if found.linear_meets is not None else 1.0,
        "the parabola meets the real path at": found.quadratic_meets if found.quadratic_meets is not None else 1.0,
        "real below the line (share of the way)": found.real_below_linear,
        "real below the parabola (share of the way)": found.real_below_quadratic or 0.0,
        "real below the parabola away from the middle": statistics.fmean(at[alpha] < bent[alpha] for alpha in inner),
        "real below the line away from the middle": statistics.fmean(at[alpha] < straight[alpha] for alpha in inner),
        "parabola minus real path at 0.5": abs(bent[0.5] - own[half]),
        "the same with random weights half way": abs(invented.losses[1] - jumping.losses[1]),
    }


def _parameters(model: nn.Module, images: Images, first: Any, middle: Any, seed: int) -> dict[str, float]:
    """Twenty single parameters of each layer on their own paths, a little beyond both ends."""
    patient = Patient.of(model, nn.NLLLoss(), images.first(0, 200).test_batches(200))
    paths = parameter_paths(patient, first, middle=middle, alphas=(OUTSIDE[0], 0.0, 1.0, OUTSIDE[1]), seed=seed)
    change = dict.fromkeys(LAYERS, 0.0)
    above: list[bool] = []
    for line in (path for path in paths.curves if path.kind == "linear"):
        layer = line.target.partition(".")[0]
        change[layer] = max(change[layer], *(abs(loss - line.losses[2]) for loss in line.losses))
        bent = paths.of(line.target, "quadratic")
        if line.travelled > 0:
            above += [bent.losses[index] > line.losses[index] for index in (0, 3)]
    return {
        **{f"largest change of the loss by one parameter of {layer}": value for layer, value in change.items()},
        "parabola above the line outside, parameters": statistics.fmean(above),
    }


def _outside_layers(patient: Patient, first: Any, middle: Any) -> dict[str, float]:
    paths = layer_paths(patient, first, middle=middle, alphas=OUTSIDE)
    above = [
        paths.of(layer, "quadratic").losses[index] > paths.of(layer).losses[index] for layer in LAYERS for index in (0, 1)
    ]
    return {"parabola above the line outside, layers": statistics.fmean(above)}


def _travelled(patient: Patient, first: Any) -> dict[str, float]:
    found = travelled_by_layer(patient, first)
    absolute = {f"distance travelled by {layer}": found[layer][0] for layer in LAYERS}
    return absolute | {f"relative distance of {layer}": found[layer][1] for layer in ("conv1", "conv2")}


def _planes(model: nn.Module, trail: Trail, seed: int, curves: dict[str, Curve]) -> dict[str, float]:
    record = trail.record()
    plane = record.plane()
    curves["trajectory in its plane"] = curve(list(map(float, plane.coordinates[:, 0])), list(map(float, plane.coordinates[:, 1])))
    _, by_chance = record.projected(random_directions(model, 2, seed=seed))
    return {"variance in two principal directions": sum(plane.explained), "variance in two random directions": by_chance}


SIZES = (1000, 4000, 10000)


def training_amounts(seed: int, images: Images) -> Measured:
    """Accuracy by epochs, with the published decay and without any, by training samples, and its spread over test subsets."""
    numbers: dict[str, float] = {}
    curves: dict[str, Curve] = {}
    small = images.first(3000)
    for name, decay in (("decayed", 0.7), ("constant", 1.0)):
        torch.manual_seed(seed)
        model = PathNet(images.channels)
        found: list[float] = []
        nnvis_training(model, small, 20, seed, decay=decay, after_epoch=lambda epoch, model=model, found=found: found.append(_accuracy(model, images)))
        numbers[f"accuracy after 15 epochs, {name} rate"] = found[14]
        numbers[f"gain from 15 to 20 epochs (points), {name} rate"] = 100 * (found[19] - found[14])
        numbers[f"gain from 10 to 15 epochs (points), {name} rate"] = 100 * (found[14] - found[9])
        curves[f"accuracy: {name} rate"] = curve(range(1, 21), found)
    for size in SIZES:
        torch.manual_seed(seed)
        model = PathNet(images.channels)
        nnvis_training(model, images.first(size), 10, seed)
        numbers[f"accuracy with {size} samples"] = _accuracy(model, images)
    patient = Patient.of(model, nn.NLLLoss(), images.test_batches())
    tenth, most = len(images.test_targets) // 10, 4 * len(images.test_targets) // 5
    study = stability_study(patient, (tenth, most), subsets=100, seed=seed)
    for name, spread in zip(("a tenth", "four fifths"), study.spreads, strict=True):
        numbers[f"deviation of accuracy over {name} of the test set"] = spread.deviation
        numbers[f"deviation that drawing predicts, {name}"] = spread.expected
    return Measured(numbers, curves)


@torch.no_grad()
def _accuracy(model: nn.Module, images: Images) -> float:
    right = [int((model(inputs).argmax(1) == targets).sum()) for inputs, targets in images.test_batches()]
    return sum(right) / len(images.test_targets)


def judge_amounts(runs: Sequence[Measured]) -> Judgement:
    def holds(run: Measured) -> bool:
        large, small = (run[f"deviation of accuracy over {name} of the test set"] for name in ("four fifths", "a tenth"))
        return run["gain from 15 to 20 epochs (points), decayed rate"] < 0.2 and large <= small / 2

    gains = [mean(runs, f"gain from 15 to 20 epochs (points), {name} rate") for name in ("decayed", "constant")]
    spreads = [mean(runs, f"deviation of accuracy over {name} of the test set") for name in ("a tenth", "four fifths")]
    sizes = ", ".join(f"{mean(runs, f'accuracy with {size} samples'):.1%} with {size}" for size in SIZES)
    reason = (
        f"epochs 16 to 20 bring {gains[0]:+.2f} points ({gains[1]:+.2f} where the rate does not decay); accuracy {sizes} samples; it varies by "
        f"{100 * spreads[0]:.2f} points over tenths of the test set and by {100 * spreads[1]:.2f} over four fifths"
    )
    return agreed([holds(run) for run in runs], reason)


def judge_sensitive(runs: Sequence[Measured]) -> Judgement:
    """Three seeds of five decide for fc1's rank, as the claim is about a majority."""

    def order(run: Measured) -> list[str]:
        return sorted(LAYERS, key=lambda layer: -run[f"lost by {layer} at init"])

    firsts = sum(order(run)[0] == "fc1" for run in runs)
    seconds = sum(order(run)[1] == "conv1" for run in runs)
    low = sum(run["accuracy with fc1 at init"] < 0.5 for run in runs)
    lost = ", ".join(f"{layer} {100 * mean(runs, f'lost by {layer} at init'):.0f}" for layer in LAYERS)
    majority = 0.6 * len(runs)
    reason = f"points lost with a layer at its initial weights: {lost}; fc1 loses most in {firsts} of {len(runs)} seeds, conv1 is second in {seconds}, fc1 leaves less than half right in {low}."
    if runs and firsts >= majority and low >= majority:
        return Judgement("reproduced", reason)
    return Judgement("contradicted" if firsts <= len(runs) - majority or low <= len(runs) - majority else "open", reason)


def judge_recovers(runs: Sequence[Measured]) -> Judgement:
    gaps = [100 * run["conv1 at 0.1: accuracy against the final one"] for run in runs]
    at_init = 100 * mean(runs, "lost by conv1 at init")
    return agreed([gap >= -1 for gap in gaps], f"at a tenth of the way conv1 is {min(gaps):+.1f} to {max(gaps):+.1f} points from the final accuracy ({-at_init:+.1f} at its initial weights)")


def judge_single(runs: Sequence[Measured]) -> Judgement:
    def largest(run: Measured, kind: str) -> float:
        return max(run[f"largest change of the loss by one parameter of {layer}"] for layer in LAYERS if layer.startswith(kind))

    factors = [largest(run, "conv") / max(largest(run, "fc"), 1e-12) for run in runs]
    farther = sum(run["distance travelled by conv1"] > run["distance travelled by conv2"] for run in runs)
    relative = sum(run["relative distance of conv1"] > run["relative distance of conv2"] for run in runs)
    reason = (
        f"single parameters of convolutions change the loss by up to {min(factors):.1f} to {max(factors):.1f} times as much as those of linear layers; conv1 travels farther than conv2 in "
        f"{farther} of {len(runs)} seeds ({relative} relative to its initial length)"
    )
    return agreed([factor >= 10 for factor in factors], reason)


def judge_straight(runs: Sequence[Measured]) -> Judgement:
    rises = [run["largest rise along the line (share of the gain)"] for run in runs]
    bulge = mean(runs, "bulge above the straight connection (share of the gain)")
    reason = f"on the line the loss never rises by more than {max(rises):.1%} of the gain; it falls late, up to {bulge:.0%} of the gain above the straight connection of its ends"
    return agreed([rise <= 0.05 for rise in rises], reason)


def judge_crossings(runs: Sequence[Measured]) -> Judgement:
    """An artefact where parabola and real path meet half way by construction: with random weights there they meet as well."""
    same = max(max(run["parabola minus real path at 0.5"], run["the same with random weights half way"]) for run in runs)
    exactly = f"to {same:.0e}" if same else "exactly"
    bent, line = mean(runs, "the parabola meets the real path at"), mean(runs, "the line meets the real path at")
    reason = (
        f"the parabola comes down to the real path at {bent:.2f} and the line at {line:.2f}; at 0.5 parabola and real path are the same {exactly}, also where the weights half way are random numbers; "
        f"away from the middle the real path is below the parabola along {mean(runs, 'real below the parabola away from the middle'):.0%} of the way and below the line along "
        f"{mean(runs, 'real below the line away from the middle'):.0%}"
    )
    if same < 1e-6:
        return Judgement("artefact", reason + ".")
    return agreed([0.35 <= run["the parabola meets the real path at"] <= 0.65 and run["the line meets the real path at"] > 0.8 for run in runs], reason)


def judge_runs_away(runs: Sequence[Measured]) -> Judgement:
    parameters, layers = ("parabola above the line outside, parameters", "parabola above the line outside, layers")
    reason = f"at -0.5 and 1.5 the parabola's loss is above the line's in {mean(runs, parameters):.0%} of the parameters and {mean(runs, layers):.0%} of the layers"
    return agreed([run[parameters] >= 0.8 and run[layers] >= 0.8 for run in runs], reason)


def judge_plane(runs: Sequence[Measured]) -> Judgement:
    principal, chance = "variance in two principal directions", "variance in two random directions"
    reason = f"two principal directions hold {mean(runs, principal):.1%} of the variance of the way, two random ones {mean(runs, chance):.1e}"
    return agreed([run[principal] > 0.6 and run[chance] < 0.01 for run in runs], reason)


PATHS = Protocol(
    "training-paths",
    "The nnvis network (81 194 parameters on grey images) as that work trained it: SGD at 0.01, momentum 0.5, the rate times 0.7 after each epoch, batches of 64; all training images of the "
    "small set, 5 epochs where the work had 60 000 images and 15. Losses on 1000 test images, of single parameters (20 of each layer) on 200; 20 checkpoints, a trail of every third step.",
    "mnist",
    training_paths,
)
AMOUNTS = Protocol(
    "training-amounts",
    "The same network and training: 20 epochs on 3000 images, with the published decay and with a constant rate; 10 epochs on 1000, 4000 and 10 000 images; 100 random subsets of a tenth and of four fifths of the test images.",
    "mnist",
    training_amounts,
)
SEEDS = (0, 1, 2, 3, 4)

EXPERIMENTS = (
    Experiment(
        "E23", "Fifteen epochs, 10 000 images and 8000 tests are enough",
        "Fifteen epochs suffice, ten thousand training samples bring the rapid improvement, and eight thousand test samples are stable.",
        f"{NEMCOVA}, 6.1",
        "Epochs 16 to 20 bring less than 0.2 points of accuracy, and the accuracy over random four fifths of the test set varies by half or less of that over tenths.",
        AMOUNTS, judge_amounts,
        tuple(f"gain from {span} epochs (points), {name} rate" for name in ("decayed", "constant") for span in ("10 to 15", "15 to 20"))
        + tuple(f"accuracy with {size} samples" for size in SIZES)
        + tuple(f"{what} {name}{rest}" for name in ("a tenth", "four fifths") for what, rest in (("deviation of accuracy over", " of the test set"), ("deviation that drawing predicts,", ""))),
        Plot("epoch", "accuracy", ("accuracy",)),
        "Both halves are nearly built in. The rate is multiplied by 0.7 after each epoch, so after fifteen it is 0.5 % of what it was, and how little changes then says more about the rate than about the training: compare the constant rate. "
        "And subsets of four fifths share most of their samples: drawing without replacement alone predicts the spread.",
    ),
    Experiment(
        "E24", "fc1 is the most sensitive layer",
        "With its initial weights, fc1 hurts most (more errors than hits), conv1 second; the other layers hardly.",
        f"{NEMCOVA}, 6.2",
        "fc1 loses most accuracy in 3 of 5 seeds or more, and accuracy with it falls below 50 %.",
        PATHS, judge_sensitive,
        tuple(f"accuracy with {layer} at init" for layer in LAYERS),
        Plot("", "accuracy with the layer at init", numbers=tuple(f"accuracy with {layer} at init" for layer in LAYERS), limits=(0.5,)),
        "That work calls the sensitive layers robust; the literature calls them critical.",
        seeds=SEEDS,
    ),
    Experiment(
        "E25", "conv1 recovers within a tenth of the way",
        "On its linear path conv1 has recovered at about 0.1, and may exceed the final accuracy.",
        f"{NEMCOVA}, 6.2",
        "With conv1 a tenth of the way from its initial weights, accuracy is at most 1 point below the final one.",
        PATHS, judge_recovers,
        ("accuracy with conv1 at init", "conv1 at 0.1: accuracy against the final one", "accuracy"),
        Plot("share of the way", "accuracy", ("layer accuracy",)),
        "conv1 costs few points at its initial weights already, so there is little to recover.",
        seeds=SEEDS,
    ),
    Experiment(
        "E26", "Single parameters of linear layers do not matter",
        "A single parameter of a linear layer is negligible, one of a convolution is visible; conv1 travels farther than conv2.",
        f"{NEMCOVA}, 6.2",
        "Over 20 random parameters of each layer, the largest change of the loss is ten times smaller in linear layers than in convolutions.",
        PATHS, judge_single,
        tuple(f"largest change of the loss by one parameter of {layer}" for layer in LAYERS)
        + tuple(f"{what} {layer}" for what in ("distance travelled by", "relative distance of") for layer in ("conv1", "conv2")),
        Plot("", "largest |change of the loss|", numbers=tuple(f"largest change of the loss by one parameter of {layer}" for layer in LAYERS), log_y=True),
        "The last layer has few parameters, each of which weighs as much as one of a convolution: it is where a network is narrow that single parameters show, not what kind of layer it is.",
        seeds=SEEDS,
    ),
    Experiment(
        "E27", "A simple line would do",
        "The loss falls monotonously on the straight line from the initial to the trained weights.",
        f"{NEMCOVA}, 6.2",
        "Along the line the loss never rises by more than 5 % of the gain above the lowest it had (monotonic linear interpolation).",
        PATHS, judge_straight,
        ("largest rise along the line (share of the gain)", "bulge above the straight connection (share of the gain)"),
        Plot("share of the way", "loss", ("path: straight",)),
        "Monotone does not mean straight: the loss stays high for long and falls late, and the real path is far below it (E28).",
        seeds=SEEDS,
    ),
    Experiment(
        "E28", "The parabola meets the real path half way",
        "SGD's real loss lies below both paths; the parabola meets it near the middle, the line only at the end.",
        f"{NEMCOVA}, figure 6.19",
        "An artefact, if at 0.5 the parabola and the real path are one point by construction, whatever weights are there. What is left of the claim is told for places away from the middle.",
        PATHS, judge_crossings,
        (
            "the parabola meets the real path at", "the line meets the real path at", "parabola minus real path at 0.5", "the same with random weights half way",
            "real below the parabola away from the middle", "real below the line away from the middle",
        ),
        Plot("share of the way", "loss", ("path",), log_y=True),
        "Why: the parabola is drawn through the initial, the middle and the trained weights, and the real path comes through the same three. That they meet at 0.5 is how the parabola was made, not how SGD "
        "works; with random weights as the middle they meet there as well. Evidence can only come from other places.",
        seeds=SEEDS,
    ),
    Experiment(
        "E29", "The parabola runs away outside",
        "Beyond both ends the parabola's loss runs away.",
        f"{NEMCOVA}, 6.3",
        "At -0.5 and 1.5 its loss is above that of the line for 80 % of the parameters and of the layers.",
        PATHS, judge_runs_away,
        ("parabola above the line outside, parameters", "parabola above the line outside, layers"),
        Plot("", "share with the parabola above", numbers=("parabola above the line outside, parameters", "parabola above the line outside, layers"), limits=(0.8,)),
        "For whole layers it does. For single parameters the loss along both paths is so flat that which one is higher is close to a coin toss.",
        seeds=SEEDS,
    ),
    Experiment(
        "E30", "A principal plane shows the way, a random one does not",
        "The plane of two principal directions captures the trajectory, that of two random directions does not.",
        f"{NEMCOVA}, 4.3",
        "Two principal directions hold more than 60 % of its variance, two random ones less than 1 %.",
        PATHS, judge_plane,
        ("variance in two principal directions", "variance in two random directions"),
        Plot("first principal direction", "second principal direction", ("trajectory in its plane",)),
        "A random direction among 81 194 sees 1 / 81 194 of any way: that it shows nothing needs no experiment. How flat the way is does.",
        seeds=SEEDS,
    ),
)  # fmt: skip
