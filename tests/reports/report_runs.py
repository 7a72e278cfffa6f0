"""Runs written down for the report's tests: an ill one, a healthy one, and the corner cases. No torch."""

from __future__ import annotations

import base64
import math
from dataclasses import replace
from typing import Any

import numpy as np

from nndoctor.findings import Diagnosis, Evidence, Finding, Fix, NotExamined, ProbeFailure, RuleDocs, Severity, ordered
from nndoctor.history import History
from nndoctor.reports.view import BeforeAfter, LabResult, Note, Relief, RunView
from nndoctor.reports.windows import raw_windows
from nndoctor.signals import CATALOGUE, Frame, Signal, Targets

HOSTILE = ("</script><img src=x onerror=alert(1)>", "blocks[/x]", "safe\u202egnp.exe\u2066", "a\x1b[2Jb\x00c", "{{ 7*7 }}", "'\"><svg onload=alert(2)>")

FACTS: dict[str, Any] = {
    "started": 1_760_000_000.0,
    "model": "ResNet-20",
    "parameters": 272_474,
    "optimizer": "AdamW",
    "loss": "CrossEntropyLoss",
    "device": "cpu",
    "seconds": 1284.0,
    "versions": {"torch": "2.13.0", "python": "3.12.3", "nndoctor": "0.1.0"},
}


OWN = (
    Signal("metric.alignment", "layer", "1", "Cosine between weights and the step that they make."),
    Signal("metric.surprise", "run", "nats", "Entropy of the prediction <of a batch>."),
    Signal("metric.silent", "run", "1", "Never published."),
)
"""What subscribers of the ill run publish."""


def targets(layers: int, names: tuple[str, ...] = ()) -> Targets:
    """`layers` layers with a weight and a bias each; `names` replace the first ones."""
    plain = tuple(f"stage{1 + i // 12}.block{i // 3 % 4}.{('conv', 'norm', 'relu')[i % 3]}{i % 3 + 1}" for i in range(layers))
    chosen = (*names, *plain[len(names) :])
    params = tuple(f"{name}.{kind}" for name in chosen for kind in ("weight", "bias"))
    return Targets(
        layers=chosen,
        layer_kinds=tuple(("Conv2d", "BatchNorm2d", "ReLU")[i % 3] for i in range(len(chosen))),
        layer_depths=tuple(range(len(chosen))),
        params=params,
        param_layers=tuple(i // 2 for i in range(len(params))),
        param_shapes=tuple((64, 32, 3, 3) if i % 2 == 0 else (64,) for i in range(len(params))),
        groups=("adamw[0]", "adamw[1]"),
    )


def history(steps: int = 3000, layers: int = 24, *, sick_from: int | None = None, every: int = 8, seed: int = 0, names: tuple[str, ...] = (), nan_from: int | None = None, frames: list[Frame] | None = None) -> History:
    """A run of `steps` steps; from `sick_from` on its learning rate is far too high. `frames` receives what was measured."""
    chance = np.random.default_rng(seed)
    aims = targets(layers, names)
    made = History(aims, CATALOGUE.extended(OWN))
    warm = np.minimum(np.arange(1, steps + 1) / max(steps / 20, 1), 1.0)
    rate = 3e-4 * warm * (0.5 + 0.5 * np.cos(np.pi * np.arange(steps) / max(steps, 1)))
    ill = np.zeros(steps) if sick_from is None else np.clip((np.arange(steps) - sick_from) / max(steps / 12, 1), 0, 1)
    rate = np.where(ill > 0, 3e-3, rate)
    loss = 0.35 + 2.0 * np.exp(-np.arange(steps) / max(steps / 5, 1)) + 0.08 * chance.standard_normal(steps) + 6 * ill**2
    base = np.exp(-np.linspace(2.5, 0, layers)) if layers else np.empty(0)
    for index in range(steps):
        step, sick = index + 1, ill[index]
        noise = np.exp(0.25 * chance.standard_normal(layers))
        values: dict[str, Any] = {
            "loss": [math.inf if nan_from is not None and step >= nan_from else loss[index]],
            "loss.chance": [math.log(10)],
            "lr": [rate[index]],
            "group.lr": [rate[index], rate[index]],
            "step.time": [0.024 + 0.002 * chance.random()],
            "step.data_wait": [0.003 + 0.001 * chance.random()],
            "step.forward": [0.007],
            "step.loss": [0.0004],
            "step.backward": [0.0105],
            "step.optimizer": [0.0018],
            "step.doctor": [0.0002],
            "step.other": [0.0011],
        }
        if index == 0:
            values |= {"group.weight_decay": [0.05, 0.0], "group.momentum": [0.9, 0.9], "group.beta2": [0.999] * 2, "group.eps": [1e-8] * 2, "lr.initial": [rate[0]]}
        if index < 50 or index % every == 0:
            gradients = base * noise * (1 + 40 * sick**2)
            dead = np.clip(np.linspace(0.02, 0.08, layers) + 0.7 * sick * (np.arange(layers) % 5 == 2), 0, 1)
            dead[np.arange(layers) % 3 != 2] = np.nan
            values |= {
                "grad.norm": gradients,
                "grad.total_norm": [float(np.sqrt(np.sum(gradients**2)))],
                "grad.total_norm_preclip": [float(np.sqrt(np.sum(gradients**2))) * 1.1],
                "clip.max_norm": [1.0],
                "update.ratio": 1e-3 * noise * (1 + 25 * sick) * np.exp(0.3 * chance.standard_normal(layers)),
                "weight.norm": np.linspace(3, 9, layers) * (1 + 0.3 * index / steps),
                "act.mean": 0.1 * chance.standard_normal(layers),
                "act.std": np.linspace(1.0, 0.7, layers) * noise,
                "act.dead_fraction": dead,
                "time.forward": np.linspace(5e-4, 2e-4, layers) * noise,
                "time.backward": np.linspace(9e-4, 4e-4, layers) * noise,
                "time.optimizer": [0.0012, 0.0006],
                "tile.span": [0.024],
                "tile.data_wait": [0.003],
                "tile.forward_other": [0.0006],
                "tile.loss": [0.0004],
                "tile.doctor": [0.002],
                "tile.rest": [0.0011],
                "param.update.ratio": 1e-3 * np.exp(0.4 * chance.standard_normal(2 * layers)),
                "param.adam.eps_fraction": 0.1 * chance.random(2 * layers),
                "input.mean": [0.01 * chance.standard_normal()],
                "input.std": [1.0 + 0.02 * chance.standard_normal()],
                "input.batch_size": [128.0],
                "target.classes": [10.0],
                "metric.alignment": np.linspace(0.1, 0.3, layers) + 0.05 * noise,
                "metric.surprise": [2.3 * np.exp(-index / steps)],
                "target.majority_fraction": [0.12 + 0.02 * chance.random()],
            }
        if step % max(steps // 20, 1) == 0:
            values |= {"val.loss": [loss[index] + 0.1], "val.accuracy": [min(0.94, 0.3 + 0.65 * index / steps)], "observed.f1_macro": [0.2 + 0.6 * index / steps]}
        frame = Frame(step, 1.76e9 + 0.025 * step, step / 400, {name: np.asarray(v, np.float32) for name, v in values.items()})
        made.append(frame)
        if frames is not None:
            frames.append(frame)
    return made


def window(first: int, jump: float = 3.0) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """A series around the step `first`, as evidence carries it."""
    steps = tuple(range(max(first - 200, 1), first + 200))
    values = tuple(1 + 0.1 * math.sin(s / 3) + (jump * min((s - first) / 40, 1.0) if s > first else 0.0) for s in steps)
    return steps, values


DOCS = {
    "learning-rate-too-high": RuleDocs(
        "learning-rate-too-high",
        "learning-rate-too-high",
        "Lower the learning rate",
        checks="The loss rises while updates stay far above the usual thousandth of the weights.",
        why="Steps overshoot the valley of the loss, every step undoes the ones before, and the loss climbs or oscillates.",
        causes=("a schedule that warms up to too large a peak", "a batch size lowered without scaling the rate"),
        confirm="Restart from the last good checkpoint with a tenth of the rate: the loss should fall again within a hundred steps.",
        fixes=("lower the learning rate to the computed value", "clip the gradient norm"),
        known_problems=("Very large batches tolerate higher ratios for a short time.",),
        explains=("layer-gradient-spike", "loss-rising"),
        references=("Smith 2017, Cyclical learning rates", "CS231n notes, ratio of weights to updates"),
    ),
    "loss-rising": RuleDocs("loss-rising", "loss-rising", "Loss is rising", checks="The loss is above its best by a third."),
    "layer-gradient-spike": RuleDocs("layer-gradient-spike", "exploding-gradients", "Gradient spike in layers"),
    "dead-relu": RuleDocs("dead-relu", "dead-relu", "Dead units", why="A unit that is zero for every sample gets no gradient and never comes back."),
    "overfitting": RuleDocs("overfitting", "overfitting", "Overfitting"),
    "input-bound": RuleDocs("input-bound", "input-bound", "Waiting for data"),
    "double-softmax": RuleDocs("double-softmax", "double-softmax", "Softmax applied twice"),
}


def findings(made: History, first: int) -> tuple[Finding, ...]:
    """What the rules would say about a run that turned ill at step `first`."""
    layers = made.targets.layers
    steps, values = window(first)
    return ordered(
        [
            Finding(
                "learning-rate-too-high", "learning-rate-too-high", Severity.ERROR, "high", (), first, made.step,
                message=f"The loss is 44 % above its best of step {first - 20} while updates are 20 times the usual size at lr 3e-3.",
                evidence=(
                    Evidence("update.ratio", layers[len(layers) // 2] if layers else None, 2.0e-2, 1e-3, ">", "1", steps, values),
                    Evidence("loss", None, 2.91, 2.02, ">", "loss", steps, values),
                ),
                fixes=(Fix("Lower the learning rate", {"lr": 2e-4}, "high", "unsafe"), Fix("Clip the gradient norm", {"max_norm": 0.5}, "medium", "unsafe")),
            ),
            Finding("loss-rising", "loss-rising", Severity.ERROR, "high", (), first + 10, made.step, message="The loss rose by 44 % in 300 steps.", explained_by="learning-rate-too-high"),
            Finding(
                "layer-gradient-spike", "exploding-gradients", Severity.WARNING, "medium", layers[: max(len(layers) - 2, 0)], first + 4, made.step,
                message="Gradient norms are 31 times their median.", explained_by="loss-rising",
            ),
            Finding(
                "dead-relu", "dead-relu", Severity.WARNING, "medium", layers[2:20:5], first + 80, made.step,
                message="74 % of the units of 4 layers were zero for every recent sample.",
                evidence=(Evidence("act.dead_fraction", layers[2] if len(layers) > 2 else None, 0.74, 0.5, ">", "fraction", steps, values),),
                fixes=(Fix("Use LeakyReLU in these layers", {}, "low", "manual"),),
            ),
            Finding("input-bound", "input-bound", Severity.INFO, "low", (), 10, 40, "cleared", "Waiting for data took 30 % of the step."),
            Finding("overfitting", "overfitting", Severity.WARNING, "low", (), first + 100, made.step, message="Validation loss rises.", suppressed="the validation set is being rebuilt"),
        ]
    )  # fmt: skip


def view(made: History, found: tuple[Finding, ...] = (), **options: Any) -> RunView:
    diagnosis = Diagnosis(
        found,
        not_examined=(NotExamined("double-softmax", "loss.softmax_twice was never measured"),),
        probe_failures=options.pop("probe_failures", ()),
        steps=made.step,
        rules=len(DOCS),
        layers=len(made.targets.layers),
        facts={},
    )
    given: dict[str, Any] = {"name": "resnet20-a3f1", "facts": FACTS, "status": "finished", "rule_docs": DOCS, **options}
    return RunView(targets=made.targets, history=made, diagnosis=diagnosis, **given)


def ill(steps: int = 3000, layers: int = 24, names: tuple[str, ...] = (), repeated: bool = True) -> RunView:
    first = int(steps * 0.7)
    made = history(steps, layers, sick_from=first, names=names)
    after = None
    if repeated:
        cured = history(steps, min(layers, 4), seed=1)
        after = BeforeAfter(cured, Diagnosis(steps=steps, rules=58, layers=layers), "lr=2e-4")
    return view(
        made, findings(made, first), before_after=after, notes=(Note(first, "probe", "timing was dismissed"),),
        probe_failures=(ProbeFailure("timing", first, "RuntimeError: no clock"),),
        lab=(LabResult("Curvature", ("eigenvalues 12, 3", "", "Unstable above a learning rate of 0.17.")), LabResult("Loss surface", ("A bowl.",), PIXEL, bowl())), published=OWN,
    )  # fmt: skip


PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")


def bowl(points: int = 21) -> Relief:
    """A bowl with one place that is not finite, and a way down into it."""
    axis = tuple(-1 + 2 * index / (points - 1) for index in range(points))
    heights = [[round(x * x + 0.5 * y * y - 1, 4) for x in axis] for y in axis]
    rows = tuple(tuple(None if (row, column) == (0, 0) else value for column, value in enumerate(values)) for row, values in enumerate(heights))
    return Relief(axis, axis, rows, ((0.8, 0.3, 0.0), (0.6, 0.4, 0.0)))


def recorded(steps: int, layers: int, every: int = 8) -> RunView:
    """An ill run with every sample around its findings, as a report of a record has it."""
    first = int(steps * 0.7)
    frames: list[Frame] = []
    made = history(steps, layers, sick_from=first, every=every, frames=frames)
    shown = view(made, findings(made, first))
    return replace(shown, windows=raw_windows(frames, shown.diagnosis, made))


def healthy(steps: int = 3000, layers: int = 24) -> RunView:
    return view(history(steps, layers))


def empty() -> RunView:
    """A run that died before its first step: nothing known, nothing measured."""
    return RunView("nothing", {}, "crashed", Targets(), History(Targets()), Diagnosis())
