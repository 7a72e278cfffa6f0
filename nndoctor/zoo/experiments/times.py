"""Claims about where the time of a step goes. Times are of the processor clock of the one thread that trains, as neighbours hardly move that."""

from __future__ import annotations

import gc
import itertools
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

import nndoctor
from nndoctor.zoo.experiments.experiment import Curve, Experiment, Judgement, Measured, Plot, Protocol, agreed, mean
from nndoctor.zoo.experiments.images import Images
from nndoctor.zoo.experiments.works import IMRAN
from nndoctor.zoo.models import TimedAlexNet, TimedVgg11

MILLI = 1000.0
SMALL_WIDTHS = (24, 64, 96, 96, 64)
"""A quarter of AlexNet's."""
BATCHES = (16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Step:
    """One training step, in seconds of processor time: by layer (forward, backward, update), and as a whole."""

    layers: dict[str, tuple[float, float, float]]
    whole: float

    @property
    def unaccounted(self) -> float:
        """Share of the step that no layer took."""
        return 1 - sum(map(sum, self.layers.values())) / self.whole


class Stepper:
    """Trains a network of children in a row, each with an optimizer of its own, so that every part can be timed by itself.

    The graph is cut between the children and the gradient handed on, which changes no number. As in the whole network the first
    child gets no gradient for its input.
    """

    def __init__(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
        self.model, self.inputs, self.targets = model, inputs, targets
        self.children = dict(model.named_children())
        self.optimizers = {name: _momentum(child) for name, child in self.children.items()}

    def step(self, picked: Tensor) -> Step:
        started = time.thread_time()
        took: dict[str, list[float]] = {}
        cuts: list[tuple[str, Tensor, Tensor]] = []
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        passed = self.inputs[picked]
        for name, child in self.children.items():
            before = passed.detach().requires_grad_(bool(cuts))
            began = time.thread_time()
            passed = child(before)
            took[name] = [time.thread_time() - began]
            cuts.append((name, before, passed))
        output = passed.detach().requires_grad_()
        F.cross_entropy(output, self.targets[picked]).backward()  # type: ignore[no-untyped-call]
        gradient = output.grad
        for name, before, after in reversed(cuts):
            began = time.thread_time()
            after.backward(gradient)  # type: ignore[no-untyped-call]
            took[name].append(time.thread_time() - began)
            gradient = before.grad
        for name, optimizer in self.optimizers.items():
            began = time.thread_time()
            optimizer.step()
            took[name].append(time.thread_time() - began)
        whole = time.thread_time() - started
        return Step({name: (times[0], times[1], times[2]) for name, times in took.items()}, whole)

    def steps(self, batch: int, count: int, warm_up: int, generator: torch.Generator) -> list[Step]:
        found = [self.step(torch.randint(0, len(self.inputs), (batch,), generator=generator)) for _ in range(warm_up + count)]
        return found[warm_up:]


def _momentum(model: nn.Module) -> Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)


def _medians(steps: Sequence[Step]) -> dict[str, tuple[float, float, float]]:
    names = list(steps[0].layers)
    return {name: tuple(statistics.median(step.layers[name][part] for step in steps) for part in range(3)) for name in names}  # type: ignore[misc]


def _coloured(images: Images, count: int, size: int) -> tuple[Tensor, Tensor]:
    """The first images in three channels, `size` pixels a side."""
    inputs = images.train_inputs[:count].expand(-1, 3, -1, -1)
    return F.interpolate(inputs, size=(size, size), mode="bilinear"), images.train_targets[:count]


def small_layers(seed: int, images: Images) -> Measured:
    """A quarter-width AlexNet, layer by layer, with growing batches."""
    torch.manual_seed(seed)
    model = TimedAlexNet(size=63, widths=SMALL_WIDTHS, hidden=512)
    stepper = Stepper(model, *_coloured(images, 512, 63))
    generator = torch.Generator().manual_seed(seed)
    numbers: dict[str, float] = {}
    curves: dict[str, Curve] = {}
    unaccounted = []
    for batch in BATCHES:
        steps = stepper.steps(batch, 100 if batch in (64, 128) else 30, 10, generator)
        medians = _medians(steps)
        unaccounted.append(statistics.median(step.unaccounted for step in steps))
        numbers[f"unaccounted, batch {batch}"] = unaccounted[-1]
        if batch in (64, 128):
            for name, (forward, backward, _) in medians.items():
                numbers[f"backward / forward of {name}, batch {batch}"] = backward / forward
            whole = sum(forward + backward for forward, backward, _ in medians.values())
            numbers[f"convolutions' share of the layers, batch {batch}"] = sum(sum(t[:2]) for n, t in medians.items() if n.startswith("conv")) / whole
    curves["unaccounted"] = (tuple(map(float, BATCHES)), tuple(unaccounted))
    return Measured(numbers, curves)


def full_layers(seed: int, images: Images) -> Measured:
    """AlexNet and VGG-11 with the shapes of that work, two steps each after one to warm up."""
    numbers: dict[str, float] = {}
    generator = torch.Generator().manual_seed(seed)
    for label, build, batch in (("AlexNet", TimedAlexNet, 64), ("VGG-11", TimedVgg11, 4)):
        torch.manual_seed(seed)
        stepper = Stepper(build(), *_coloured(images, batch, 224))
        medians = _medians(stepper.steps(batch, 2, 1, generator))
        whole = sum(forward + backward for forward, backward, _ in medians.values())
        for name, (forward, backward, _) in medians.items():
            numbers[f"{label}: {name} (ms)"] = MILLI * (forward + backward)
        numbers[f"{label}: convolutions' share"] = sum(sum(t[:2]) for n, t in medians.items() if n.startswith("conv")) / whole
        del stepper
        gc.collect()
    return Measured(numbers)


ROUNDS, BLOCK, SETTLE = 6, 12, 60


def profiling_cost(seed: int, images: Images) -> Measured:
    """The same steps bare, with the doctor, with the doctor measuring every step, and under torch.profiler, in turns."""
    inputs, targets = _coloured(images, 512, 63)
    with tempfile.TemporaryDirectory() as folder:
        arms = {
            "bare": _Arm(seed, inputs, targets),
            "doctor": _Arm(seed, inputs, targets, Path(folder) / "light"),
            "doctor, every step": _Arm(seed, inputs, targets, Path(folder) / "every", cadence=1),
            "torch.profiler": _Arm(seed, inputs, targets, profiled=True),
        }
        times: dict[str, list[float]] = {name: [] for name in arms}
        for arm in arms.values():
            arm.run(SETTLE if arm.doctor is not None else 5, nullcontext())
        for _ in range(ROUNDS):
            for name, arm in arms.items():
                times[name].append(arm.block())
        for arm in arms.values():
            arm.close()
    bare = times["bare"]
    numbers = {"step (ms)": MILLI * statistics.median(bare) / BLOCK}
    for name, found in times.items():
        if name != "bare":
            numbers[f"added by {name}"] = statistics.median(each / base for each, base in zip(found, bare, strict=True)) - 1
    return Measured(numbers)


class _Arm:
    """A training of its own, watched in one way or not at all; times are of all threads of the process."""

    def __init__(
        self, seed: int, inputs: Tensor, targets: Tensor, run_dir: Path | None = None, *, cadence: int | None = None, profiled: bool = False
    ) -> None:
        torch.manual_seed(seed)
        self.model = TimedAlexNet(size=63, widths=SMALL_WIDTHS, hidden=512)
        self.optimizer = _momentum(self.model)
        self.inputs, self.targets, self.profiled = inputs, targets, profiled
        self.generator = torch.Generator().manual_seed(seed)
        self.doctor: Any = None
        if run_dir is not None:
            self.doctor = nndoctor.wrap(self.model, self.optimizer, ui="off", run_dir=run_dir, cadence=cadence, sinks="off")

    def block(self) -> float:
        watching: AbstractContextManager[Any] = nullcontext()
        if self.profiled:
            watching = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], with_modules=True)
        started = time.process_time()
        self.run(BLOCK, watching)
        return time.process_time() - started

    def run(self, steps: int, watching: AbstractContextManager[Any]) -> None:
        with watching as profiler:
            for _ in range(steps):
                picked = torch.randint(0, len(self.inputs), (64,), generator=self.generator)
                self.optimizer.zero_grad()
                F.cross_entropy(self.model(self.inputs[picked]), self.targets[picked]).backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
        if self.profiled and profiler is not None:
            profiler.key_averages()

    def close(self) -> None:
        if self.doctor is not None:
            self.doctor.close()


ALEXNET_ROWS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc1", "fc2", "output")
VGG_ROWS = (*(f"conv{number}" for number in range(1, 9)), "fc1", "fc2", "output")
VGG_ORDER = ("conv6", "conv4", "fc1", "conv2", "conv5", "conv3", "conv7", "conv8", "conv1", "fc2", "output")


def judge_backward(runs: Sequence[Measured]) -> Judgement:
    def exceptions(run: Measured) -> list[str]:
        return [f"{name} at {batch}" for batch in (64, 128) for name in ALEXNET_ROWS[:-1] if run[f"backward / forward of {name}, batch {batch}"] <= 1]

    found = sorted({name for run in runs for name in exceptions(run)})
    factors = [run[f"backward / forward of {name}, batch {batch}"] for run in runs for batch in (64, 128) for name in ALEXNET_ROWS[:-1]]
    output = [run[f"backward / forward of output, batch {batch}"] for run in runs for batch in (64, 128)]
    told = f"; exceptions: {', '.join(found)}" if found else ""
    reason = f"backward takes {min(factors):.2f} to {max(factors):.2f} times as long as forward, of the output layer {min(output):.2f} to {max(output):.2f} times{told}"
    return agreed([not exceptions(run) for run in runs], reason)


def judge_order(runs: Sequence[Measured]) -> Judgement:
    """By the share of the convolutions; the whole order is told, as it belongs to a machine."""

    def told(label: str, rows: Sequence[str]) -> str:
        return " > ".join(sorted(rows, key=lambda name: -mean(runs, f"{label}: {name} (ms)")))

    shares = [run["AlexNet: convolutions' share"] for run in runs]
    reason = f"convolutions take {min(shares):.0%} to {max(shares):.0%} of AlexNet's layers; here {told('AlexNet', ALEXNET_ROWS)}, and {told('VGG-11', VGG_ROWS)}"
    return agreed([share > 0.5 for share in shares], reason)


def judge_unaccounted(runs: Sequence[Measured]) -> Judgement:
    """With a tolerance of a percentage point, the noise of the medians here."""

    def falls(run: Measured) -> bool:
        found = [run[f"unaccounted, batch {batch}"] for batch in BATCHES]
        return all(after <= before + 0.01 for before, after in itertools.pairwise(found))

    told = ", ".join(f"{mean(runs, f'unaccounted, batch {batch}'):.1%} at {batch}" for batch in BATCHES)
    return agreed([falls(run) for run in runs], f"what no layer took: {told}")


def judge_cost(runs: Sequence[Measured]) -> Judgement:
    """Reproduced where every way of measuring doubles the time, contradicted where the light one stays below a tenth."""
    ways = ("doctor", "doctor, every step", "torch.profiler")
    told = ", ".join(f"{name} {mean(runs, f'added by {name}'):+.0%}" for name in ways)
    if runs and all(run[f"added by {name}"] > 1 for run in runs for name in ways):
        return Judgement("reproduced", f"added to a step: {told}.")
    light = [run["added by doctor"] < 0.1 for run in runs]
    return Judgement("contradicted" if runs and all(light) else "open", f"added to a step: {told}.")


SMALL = Protocol(
    "layer-times",
    "AlexNet with a quarter of the channels (24, 64, 96, 96, 64), 512 hidden units and 63 x 63 images, SGD with momentum; batches of 16 to 256, 30 steps each after 10, 100 steps at 64 and 128. "
    "Each layer is run and timed by itself within the step, by the processor clock of the training thread, on one thread of a shared machine.",
    "cifar10",
    small_layers,
)
FULL = Protocol(
    "layer-times-full-shapes",
    "AlexNet (batches of 64) and VGG-11 (batches of 4) with the shapes of that work, 224 x 224 images, the median of two steps after one; processor clock of one thread of a shared machine, no GPU.",
    "cifar10",
    full_layers,
)
COST = Protocol(
    "profiling-cost",
    "The quarter-width AlexNet, batches of 64: bare, with the doctor as it is by default, with the doctor measuring every step, and under torch.profiler; 6 rounds of 12 steps each in turns, the median of "
    "the ratios of processor time of all threads. The doctor has seen 60 steps before.",
    "cifar10",
    profiling_cost,
)

EXPERIMENTS = (
    Experiment(
        "E19", "Backward takes longer than forward",
        "Every layer but the output takes longer backward than forward.",
        f"{IMRAN}, 4.5",
        "The median over 100 steps of the backward time is above that of the forward time for every layer but the output, with batches of 64 and of 128.",
        SMALL, judge_backward,
        tuple(f"backward / forward of {name}, batch {batch}" for batch in (64, 128) for name in ALEXNET_ROWS),
        Plot("", "backward / forward", numbers=tuple(f"backward / forward of {name}, batch 64" for name in ALEXNET_ROWS), limits=(1.0,)),
        "conv1 is the closest: it gets no gradient for its input to compute.",
    ),
    Experiment(
        "E20", "Convolutions take most of the time",
        "AlexNet: conv1, conv2 > conv3, conv4 > conv5 > fc1 > fc2 > output. VGG-11: conv6 > conv4 > fc1, conv2 > conv5 > conv3, conv7, conv8 > conv1 > fc2 > output.",
        f"{IMRAN}, 4.5",
        "With batches of 64 the convolutions take more than half of AlexNet's time. The whole order belongs to a machine (Quadro P600 there) and is only told.",
        FULL, judge_order,
        ("AlexNet: convolutions' share", *(f"AlexNet: {name} (ms)" for name in ALEXNET_ROWS), "VGG-11: convolutions' share", *(f"VGG-11: {name} (ms)" for name in VGG_ROWS)),
        Plot("", "forward and backward (ms)", numbers=tuple(f"AlexNet: {name} (ms)" for name in ALEXNET_ROWS), log_y=True),
        "The order depends on what a machine is good at: here no GPU, and linear layers with few rows wait for memory.",
    ),
    Experiment(
        "E21", "Larger batches leave less unaccounted",
        "44 to 54 % of an iteration belong to no layer with batches of 64, 38 to 44 % with batches of 128.",
        f"{IMRAN}, 4.5",
        "The share of a step that no layer took does not grow with the batch (16 to 256), to one point. The numbers themselves are not portable.",
        SMALL, judge_unaccounted,
        tuple(f"unaccounted, batch {batch}" for batch in BATCHES),
        Plot("batch", "share that no layer took", ("unaccounted",), log_x=True),
        "That work's profiler missed transfers and idle time, and called what it missed an error. Here what remains is known: picking the batch, `zero_grad` and the loss.",
    ),
    Experiment(
        "E22", "Profiling costs more than twice the training",
        "Measuring layer by layer adds 245 % (AlexNet) and 235 % (VGG-11) to the training.",
        f"{IMRAN}, 4.6",
        "Reproduced, if every way of measuring here doubles the time; contradicted, if the light one adds less than 10 %.",
        COST, judge_cost,
        ("added by doctor", "added by doctor, every step", "added by torch.profiler", "step (ms)"),
        Plot("", "added to a step", numbers=("added by doctor", "added by doctor, every step", "added by torch.profiler"), limits=(0.1,)),
        "These are the doctor's 60th to 130th step, in which it still looks often; [what it costs](performance.md) in the long run is measured elsewhere.",
    ),
)  # fmt: skip
