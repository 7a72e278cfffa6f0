"""A claim about batch size and curvature."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from nndoctor.lab import Patient
from nndoctor.lab.curvature import hessian_eigenpairs
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
from nndoctor.zoo.experiments.fitting import fit
from nndoctor.zoo.experiments.images import Images
from nndoctor.zoo.experiments.works import DIEDERICHSEN
from nndoctor.zoo.models import PathNet

SAMPLES, EPOCHS = 2048, 6
ARMS = {"batch 32": (32, EPOCHS), "batch 512, same epochs": (512, EPOCHS), "batch 512, same steps": (512, EPOCHS * 512 // 32)}


def sharpness_by_batch(seed: int, images: Images) -> Measured:
    """The largest eigenvalue of the Hessian after training with small and with large batches."""
    numbers: dict[str, float] = {}
    curves: dict[str, Curve] = {}
    chosen = images.first(SAMPLES)
    for name, (batch, epochs) in ARMS.items():
        torch.manual_seed(seed)
        model = PathNet(images.channels)
        fitted = fit(model, torch.optim.SGD(model.parameters(), lr=0.05), chosen, batch_size=batch, epochs=epochs, seed=seed)
        probe = list(zip(torch.split(chosen.train_inputs[:512], 128), torch.split(chosen.train_targets[:512], 128), strict=True))
        found = hessian_eigenpairs(Patient.of(model, F.cross_entropy, probe), 1, which="largest", tolerance=1e-2)
        numbers[f"largest eigenvalue, {name}"] = found.values[0]
        numbers[f"training loss, {name}"] = fitted.final_loss
        numbers[f"accuracy, {name}"] = fitted.accuracy
        curves[f"loss: {name}"] = curve(range(len(fitted.losses)), fitted.losses)
    return Measured(numbers, curves)


def judge_sharpness(runs: Sequence[Measured]) -> Judgement:
    """Held by a seed where it holds at equal epochs and at equal steps; open where the two differ."""

    def larger(run: Measured, how: str) -> bool:
        return run[f"largest eigenvalue, batch 512, same {how}"] > run["largest eigenvalue, batch 32"]

    values = ", ".join(f"{mean(runs, f'largest eigenvalue, {name}'):.3g} with {name}" for name in ARMS)
    held = [larger(run, how) for how in ("epochs", "steps") for run in runs]
    shares = " and ".join(f"{sum(larger(run, how) for run in runs)} of {len(runs)} at equal {how}" for how in ("epochs", "steps"))
    return Judgement(agreed(held, "").verdict, f"largest eigenvalue {values}; larger with the larger batch: {shares}.")


SHARPNESS = Protocol(
    "sharpness-by-batch",
    "The nnvis network, SGD at 0.05 on 2048 images: batches of 32 for 6 epochs (384 steps); batches of 512 for as many epochs (24 steps), and for as many steps. "
    "The largest eigenvalue by Lanczos on 512 training images.",
    "cifar10",
    sharpness_by_batch,
)

EXPERIMENTS = (
    Experiment(
        "E31", "Larger batches end sharper",
        "The largest eigenvalue of the Hessian is larger after training with larger batches.",
        f"{DIEDERICHSEN}, 4.1, after Yao et al.",
        "Batches of 512 end with a larger eigenvalue than batches of 32 with every seed, at equal epochs and at equal steps; contradicted where with none; else open.",
        SHARPNESS, judge_sharpness,
        tuple(f"{what}, {name}" for what in ("largest eigenvalue", "training loss", "accuracy") for name in ARMS),
        Plot("", "largest eigenvalue", numbers=tuple(f"largest eigenvalue, {name}" for name in ARMS), log_y=True),
        "At equal epochs the larger batch has made a sixteenth of the steps and is still near its start; at equal steps it has seen sixteen times the samples. Neither compares batch size alone.",
    ),
)  # fmt: skip
