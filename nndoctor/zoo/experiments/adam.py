"""Claims about Adam: the steps it really makes, layer by layer, and how much it minds its learning rate."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nndoctor.zoo.experiments.attended import attended
from nndoctor.zoo.experiments.experiment import Experiment, Judgement, Measured, Plot, Protocol, agreed, curve, mean
from nndoctor.zoo.experiments.fitting import CHANCE_LOSS, fit, matrices
from nndoctor.zoo.experiments.images import Images
from nndoctor.zoo.experiments.works import DIEDERICHSEN
from nndoctor.zoo.models import AdamConvNet, DenseNet4, Vgg

WARM_UP = 50
EVERY = 5
"""Steps between two looks at the optimizer's state, which itself is exact at every step."""
SUBSAMPLE = 40
"""Of the published measurement: only every 40th gradient enters its moments, which are corrected by the true step."""

TINY_VGG = (8, "pool", 16, "pool", 32, 32, "pool", 64, 64, "pool", 64, 64, "pool")


class AdamObserver:
    """Reads what Adam does with every weight matrix: its own moments, and its real steps by element.

    Args:
        rows: step, and by layer the medians of |step / gradient|, of the corrected second and |first| moment, and the shares
            of elements whose root of the second moment is below epsilon, and that never had a gradient.
        published: step, and by layer the median of |step / gradient| as the published measurement has it.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self.layers = matrices(model)
        self.rows: list[tuple[int, dict[str, tuple[float, float, float, float, float]]]] = []
        self.published: list[tuple[int, dict[str, float]]] = []
        self._moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in self.layers.items()}
        self._before: dict[str, Tensor] = {}
        self._step = 0
        optimizer.register_step_pre_hook(self._copy)
        optimizer.register_step_post_hook(self._look)

    def of(self, layer: str, column: int, start: int = WARM_UP) -> list[float]:
        """One column of one layer from the step `start` on."""
        return [row[layer][column] for step, row in self.rows if step >= start]

    def _copy(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._step % EVERY == 0:
            self._before = {name: p.detach().clone() for name, p in self.layers.items()}

    @torch.no_grad()
    def _look(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        step, self._step = self._step, self._step + 1
        (group,) = optimizer.param_groups
        if step % EVERY == 0:
            self.rows.append((step, {name: self._row(name, optimizer.state[p], group) for name, p in self.layers.items()}))
        if step % SUBSAMPLE == 0:
            self.published.append((step, {name: self._as_published(name, step + 1, group) for name in self.layers}))

    def _row(self, name: str, state: dict[str, Any], group: dict[str, Any]) -> tuple[float, float, float, float, float]:
        weight = self.layers[name]
        first, second = _corrected(state["exp_avg"], state["exp_avg_sq"], int(state["step"]), group["betas"])
        below = (second.sqrt() < group["eps"]).float().mean()
        effective = _median_ratio(weight - self._before[name], weight.grad)
        never = (second == 0).float().mean()
        return effective, float(second.median()), float(first.abs().median()), float(below), float(never)

    def _as_published(self, name: str, step: int, group: dict[str, Any]) -> float:
        gradient = self.layers[name].grad
        first, second = self._moments[name]
        beta1, beta2 = group["betas"]
        assert gradient is not None
        first.mul_(beta1).add_(gradient, alpha=1 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        rate = group["lr"] * math.sqrt(1 - beta2**step) / (1 - beta1**step)
        return _median_ratio(rate * first / (second.sqrt() + group["eps"]), gradient)


def _corrected(first: Tensor, second: Tensor, step: int, betas: tuple[float, float]) -> tuple[Tensor, Tensor]:
    return first / (1 - betas[0] ** step), second / (1 - betas[1] ** step)


def _median_ratio(change: Tensor, gradient: Tensor | None) -> float:
    """Median of |change / gradient| over the elements with a gradient; NaN where there is none."""
    if gradient is None or not bool((present := gradient != 0).any()):
        return math.nan
    return float((change[present] / gradient[present]).abs().median())


CONVOLUTIONS = ("features.0", "features.3", "features.6")
HIDDEN = "classifier.0"


def observe_adam(seed: int, images: Images) -> Measured:
    """The convolutional network Adam was introduced with, at a quarter of its width."""
    torch.manual_seed(seed)
    model = AdamConvNet(images.channels, width=16, hidden=250)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    seen = AdamObserver(model, optimizer)
    fitted = fit(model, optimizer, images.first(6400), batch_size=64, steps=250, seed=seed)

    compared = (*CONVOLUTIONS, HIDDEN)
    effective = {name: seen.of(name, 0) for name in compared}
    above = [all(h > c for c in cs) for h, *cs in zip(effective[HIDDEN], *(effective[c] for c in CONVOLUTIONS), strict=True)]
    gaps = [
        statistics.fmean(_typical(seen.of(c, column)) for c in CONVOLUTIONS) - _typical(seen.of(HIDDEN, column))
        for column in (1, 2)
    ]
    first = [row[name][0] for _, row in seen.rows for name in compared]
    published = [row[name] for _, row in seen.published for name in compared if row[name] > 0]
    second = seen.of(CONVOLUTIONS[0], 1)
    quarter = len(second) // 4
    numbers = {
        "steps with the hidden linear layer above every convolution": sum(above) / len(above),
        "gap of the second moment (decades)": gaps[0],
        "gap of the first moment (decades)": gaps[1],
        "smallest effective rate": min(first),
        "largest effective rate": max(first),
        "decades between them": math.log10(max(first) / min(first)),
        "decades, as published": math.log10(max(published) / min(published)),
        "typical rate as published / real": statistics.median(published[len(compared) :]) / statistics.median(first),
        "share below epsilon": max(seen.rows[-1][1][name][3] for name in compared),
        "share below epsilon, convolutions": max(seen.rows[-1][1][name][3] for name in CONVOLUTIONS),
        "share that never had a gradient": max(seen.rows[-1][1][name][4] for name in compared),
        "second moment of conv1, last / first quarter": statistics.median(second[-quarter:]) / statistics.median(second[:quarter]),
        "accuracy": fitted.accuracy,
    }
    steps = [step for step, _ in seen.rows]
    curves = {}
    for name, label in zip(compared, ("conv1", "conv2", "conv3", "hidden linear"), strict=True):
        for column, what in enumerate(("effective rate", "second moment", "first moment")):
            curves[f"{what}: {label}"] = curve(steps, seen.of(name, column, 0))
    return Measured(numbers, curves)


def _typical(values: Sequence[float]) -> float:
    """Decimal logarithm of the median, which single steps do not decide: in them most of a layer may have no gradient."""
    return math.log10(max(statistics.median(values), 1e-30))


DENSE_RATES = (5e-4, 1e-3, 1e-2)


def dense_rates(seed: int, images: Images) -> Measured:
    """The dense network at an eighth of its width with three learning rates; the doctor looks on."""
    numbers: dict[str, float] = {}
    curves = {}
    for rate in DENSE_RATES:
        torch.manual_seed(seed)
        model = DenseNet4(images.channels, widths=(500, 500, 500, 125))
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        hidden = list(matrices(model).values())[:-1]
        lengths: list[float] = []

        def note(step: int, loss: float, optimizer: Optimizer = optimizer, hidden: list[Tensor] = hidden, lengths: list[float] = lengths) -> None:
            moments = [_corrected(state["exp_avg"], state["exp_avg_sq"], step + 1, (0.9, 0.999))[0] for state in map(optimizer.state.__getitem__, hidden)]
            lengths.append(float(torch.stack([moment.norm() for moment in moments]).norm()))

        with attended(model, optimizer) as seen:
            fitted = fit(model, optimizer, images.first(6400), batch_size=128, steps=200, seed=seed, after_step=note)
        numbers[f"accuracy at {rate:g}"] = fitted.accuracy
        numbers[f"loss at {rate:g}"] = fitted.final_loss
        numbers[f"first moment at {rate:g}, last / first 20 steps"] = statistics.fmean(lengths[-20:]) / statistics.fmean(lengths[:20])
        numbers[f"doctor names the learning rate at {rate:g}"] = float("learning-rate-too-high" in seen.causes)
        curves[f"loss: {rate:g}"] = curve(range(len(fitted.losses)), fitted.losses)
        curves[f"first moment: {rate:g}"] = curve(range(len(lengths)), lengths)
    return Measured(numbers, curves)


def vgg_rates(seed: int, images: Images) -> Measured:
    """A tiny VGG with a rate of 0.1, by Adam and by SGD; the doctor looks on."""
    numbers: dict[str, float] = {}
    curves = {}
    epoch = 100
    for name, kind in (("Adam", torch.optim.Adam), ("SGD", torch.optim.SGD)):
        torch.manual_seed(seed)
        model = Vgg(images.channels, plan=TINY_VGG)
        optimizer = kind(model.parameters(), lr=0.1)
        with attended(model, optimizer) as seen:
            fitted = fit(model, optimizer, images.first(64 * epoch), batch_size=64, steps=2 * epoch, seed=seed)
        numbers[f"final loss, {name}"] = fitted.final_loss
        numbers[f"accuracy, {name}"] = fitted.accuracy
        numbers[f"first alarm, {name} (step)"] = min(seen.steps, default=math.nan)
        numbers[f"alarms within an epoch, {name}"] = sum(step < epoch for step in seen.steps)
        curves[f"loss: {name}"] = curve(range(len(fitted.losses)), fitted.losses)
    return Measured(numbers, curves)


def judge_dense_above(runs: Sequence[Measured]) -> Judgement:
    shares = [run["steps with the hidden linear layer above every convolution"] for run in runs]
    return agreed([share >= 0.8 for share in shares], f"the hidden linear layer is above every convolution in {min(shares):.0%} of the steps, with the seed that has fewest")


def judge_second_moment(runs: Sequence[Measured]) -> Judgement:
    second, first = "gap of the second moment (decades)", "gap of the first moment (decades)"
    reason = f"second moments are {mean(runs, second):.2f} decades smaller in the hidden linear layer, first moments {mean(runs, first):.2f}"
    return agreed([run[second] >= 1 and abs(run[first]) < 1 for run in runs], reason)


def judge_range(runs: Sequence[Measured]) -> Judgement:
    reason = (
        f"medians by layer go from {min(run['smallest effective rate'] for run in runs):.2g} to "
        f"{max(run['largest effective rate'] for run in runs):.2g}, {mean(runs, 'decades between them'):.1f} decades; "
        f"as published, they would be {mean(runs, 'typical rate as published / real'):.1f} times the real ones"
    )
    return agreed([run["decades between them"] >= 2 for run in runs], reason)


def judge_no_epsilon(runs: Sequence[Measured]) -> Judgement:
    share, trend = "share below epsilon", "second moment of conv1, last / first quarter"
    never, convolutions = "share that never had a gradient", "share below epsilon, convolutions"
    reason = f"up to {max(run[share] for run in runs):.2%} of a layer lie below epsilon ({max(run[convolutions] for run in runs):.2%} in convolutions; up to {max(run[never] for run in runs):.2%} never had a gradient at all), and conv1's second moment goes to {mean(runs, trend):.2f} of what it was"
    return agreed([run[share] < 0.01 and run[trend] >= 0.5 for run in runs], reason)


def judge_dense_rates(runs: Sequence[Measured]) -> Judgement:
    def holds(run: Measured) -> bool:
        failed = run["accuracy at 0.01"] < 0.15 and run["first moment at 0.01, last / first 20 steps"] < 0.01
        alike = abs(run["accuracy at 0.0005"] - run["accuracy at 0.001"]) < 0.05
        return failed and alike

    accuracies = ", ".join(f"{mean(runs, f'accuracy at {rate:g}'):.0%} at {rate:g}" for rate in DENSE_RATES)
    moment = mean(runs, "first moment at 0.01, last / first 20 steps")
    named = sum(run["doctor names the learning rate at 0.01"] for run in runs)
    reason = f"accuracy {accuracies}; the first moment at 0.01 goes to {moment:.2g} of what it was; the doctor names the rate in {named:g} of {len(runs)} runs at 0.01"
    return agreed([holds(run) for run in runs], reason)


def judge_vgg_rates(runs: Sequence[Measured]) -> Judgement:
    def holds(run: Measured) -> bool:
        adam, sgd = run["final loss, Adam"], run["final loss, SGD"]
        return adam >= 0.9 * CHANCE_LOSS or adam >= 3 * sgd

    alarms = ", ".join("never" if math.isnan(step := run["first alarm, Adam (step)"]) else f"{step:g}" for run in runs)
    reason = (
        f"the loss ends at {mean(runs, 'final loss, Adam'):.2f} with Adam and {mean(runs, 'final loss, SGD'):.2f} with SGD (chance: {CHANCE_LOSS:.2f}); "
        f"the doctor's first alarm with Adam comes at step {alarms} (an epoch has 100)"
    )
    return agreed([holds(run) for run in runs], reason)


OBSERVED = Protocol(
    "adam-observed",
    "Adam (1e-3) on the network Adam was introduced with, 16 instead of 64 channels and 250 instead of 1000 hidden units (151 224 parameters); "
    "6400 images, batches of 64, 250 steps, read from the optimizer's own state every fifth step. The classifier is left out, as in that work.",
    "cifar10",
    observe_adam,
)
DENSE = Protocol(
    "adam-dense-rates",
    "Adam on the dense network with 500, 500, 500 and 125 hidden units (2.1 million parameters); 6400 images, batches of 128, 200 steps for each rate.",
    "cifar10",
    dense_rates,
)
VGG = Protocol(
    "vgg-rate-0.1",
    "A VGG-11 with batch normalisation and an eighth of the channels (8 to 64, 145 898 parameters) with Adam and with SGD at 0.1; 6400 images, batches of 64, 200 steps (2 epochs).",
    "cifar10",
    vgg_rates,
)

EXPERIMENTS = (
    Experiment(
        "E1", "Dense layers take larger effective rates",
        "The effective learning rate of Adam, |step / gradient|, is larger in dense than in convolutional layers.",
        f"{DIEDERICHSEN}, 3.3.2 and 3.3.3",
        "After 50 steps, the median of the hidden linear layer lies above that of every convolution in 80 % of the steps.",
        OBSERVED, judge_dense_above,
        ("steps with the hidden linear layer above every convolution", "accuracy"),
        Plot("step", "median |step / gradient|", ("effective rate",), log_y=True),
        "Adam divides by the size of the gradients, so a layer with smaller gradients gets a larger rate: this says which layer has the smaller gradients.",
    ),
    Experiment(
        "E2", "because their second moment is much smaller",
        "The second moment of dense layers is orders of magnitude smaller than that of convolutions, the first by less than one.",
        f"{DIEDERICHSEN}, 3.3.3",
        "Median second moments differ by a decade or more (mean of the convolutions against the hidden linear layer, after 50 steps), median |first moments| by less than one.",
        OBSERVED, judge_second_moment,
        ("gap of the second moment (decades)", "gap of the first moment (decades)"),
        Plot("step", "median second moment", ("second moment",), log_y=True),
        "The medians are over all elements. Weights of hidden units that are silent get no gradient, and the first moment forgets earlier ones a hundred times faster than the second: "
        "where most of a layer is silent its median first moment can be anything.",
    ),
    Experiment(
        "E3", "Effective rates span decades",
        "The median effective rates of the layers span 1e-3 to 10.",
        f"{DIEDERICHSEN}, 3.3.3",
        "Smallest and largest median differ by a factor of 100 or more, over layers and steps.",
        OBSERVED, judge_range,
        ("smallest effective rate", "largest effective rate", "decades between them", "decades, as published", "typical rate as published / real"),
        Plot("", "effective rate", numbers=("smallest effective rate", "largest effective rate"), log_y=True),
        "The published measurement fed only every 40th gradient into its own moments and corrected them by the true step; the same estimator was run "
        "beside the optimizer's state here, and its rates are not Adam's.",
    ),
    Experiment(
        "E4", "The second moment does not vanish",
        "Against what Kingma and Ba report, the second moment does not vanish: epsilon does not decide the steps.",
        f"{DIEDERICHSEN}, 3.3.3",
        "Below 1 % of the elements of every layer have a root of the second moment below epsilon, and the median of the first convolution does not fall by half from the first to the last quarter after 50 steps.",
        OBSERVED, judge_no_epsilon,
        ("share below epsilon", "share below epsilon, convolutions", "share that never had a gradient", "second moment of conv1, last / first quarter"),
        Plot("step", "median second moment", ("second moment: conv1",), log_y=True),
        "An element that never had a gradient has a second moment of exactly zero and does not move at all: that is no step decided by epsilon. Compare the share that never had one.",
    ),
    Experiment(
        "E5", "Adam minds its base rate",
        "A dense network learns about alike with 5e-4 and 1e-3; with 1e-2 it fails, and the first moment vanishes.",
        f"{DIEDERICHSEN}, 3.3",
        "At 1e-2 accuracy stays below 15 % and the first moment of the hidden layers falls below 1 % of its start, 5e-4 and 1e-3 are within 5 points. Told besides: whether the doctor names the learning rate.",
        DENSE, judge_dense_rates,
        (*(f"accuracy at {rate:g}" for rate in DENSE_RATES), "first moment at 0.01, last / first 20 steps", *(f"doctor names the learning rate at {rate:g}" for rate in DENSE_RATES)),
        Plot("step", "length of the first moment", ("first moment",), log_y=True),
        "After 200 steps the rate of 0.01 costs accuracy, but at this width the network still learns; the claim is about one eight times as wide that was trained for longer.",
    ),
    Experiment(
        "E6", "A VGG does not converge with Adam at 0.1",
        "With a learning rate of 0.1, SGD trains a VGG and Adam does not.",
        f"{DIEDERICHSEN}, 3.4.3",
        "The loss with Adam ends at 90 % of chance or at three times that with SGD. Told besides: when the doctor raises an alarm.",
        VGG, judge_vgg_rates,
        ("final loss, Adam", "final loss, SGD", "accuracy, Adam", "accuracy, SGD", "first alarm, Adam (step)", "first alarm, SGD (step)"),
        Plot("step", "loss", ("loss",), log_y=True, limits=(CHANCE_LOSS,)),
    ),
)  # fmt: skip
