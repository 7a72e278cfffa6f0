"""How long the examinations of the lab take, in processor time, workers included: that is what neighbours move least.

    python benchmarks/lab_times.py [hessian-mlp hessian-cnn layers-resnet18 surface-nnvis] [--kill 0.5]

Networks are trained for a few steps on the images that ship with the package before they are examined; the training is
not counted. With ``--kill`` each examination is killed (SIGKILL) at that share of its way and started again, from what it
had kept on disk by then.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from nndoctor.lab import Patient, Progress
from nndoctor.lab.curvature import hessian_eigenpairs
from nndoctor.lab.surface import random_surface
from nndoctor.lab.unhelpful import unhelpful_layers
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import PathNet, model_named


def batches(inputs: Tensor, targets: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def trained(model: nn.Module, inputs: Tensor, targets: Tensor, steps: int, batch_size: int = 32, rate: float = 0.05) -> nn.Module:
    """`model` after some steps of gradient descent with momentum."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    for step in range(steps):
        start = step * batch_size % (len(inputs) - batch_size)
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs[start : start + batch_size]), targets[start : start + batch_size]).backward()
        optimizer.step()
    return model


@dataclass(frozen=True)
class Examination:
    """Something that is timed.

    Args:
        patient: makes it; not timed.
        examine: does it, with a folder for finished pieces and a progress callback, and says in a few words what came out.
        steps: the text by which the progress of its longest part is known.
    """

    patient: Callable[[], Patient]
    examine: Callable[[Patient, Path, Progress], str]
    steps: str


def perceptron() -> Patient:
    """With a million parameters, on 1000 images."""
    widths = [nn.Flatten(), nn.Linear(784, 800), nn.ReLU(), nn.Linear(800, 460), nn.ReLU(), nn.Linear(460, 10)]
    return _grey(nn.Sequential(*widths))


def convolutions() -> Patient:
    """With a million parameters, on 1000 images."""

    def block(channels_in: int, channels: int) -> nn.Module:
        parts = nn.Conv2d(channels_in, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2)
        return nn.Sequential(*parts)

    blocks = block(1, 32), block(32, 64), block(64, 128)
    return _grey(nn.Sequential(*blocks, nn.Flatten(), nn.Linear(1152, 780), nn.ReLU(), nn.Linear(780, 10)))


def resnet18() -> Patient:
    """ResNet-18 (32 x 32 x 3), with 256 held-out images."""
    split = classification()
    model = model_named("resnet18").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained(model, _colour(split.train_inputs[:2000]), split.train_targets[:2000], steps=60, rate=0.01)
    return Patient.of(model, functional.cross_entropy, batches(_colour(split.val_inputs[:256]), split.val_targets[:256], 64))


def nnvis() -> Patient:
    """The network of nnvis, with 2000 images of 32 x 32."""
    split = classification()
    inputs, targets = functional.pad(split.train_inputs[:2000], (2, 2, 2, 2)), split.train_targets[:2000]
    return Patient.of(trained(PathNet(), inputs, targets, steps=200), functional.nll_loss, batches(inputs, targets, 250))


def eigenvalues(patient: Patient, work: Path, progress: Progress) -> str:
    found = hessian_eigenpairs(patient, 5, work=work, progress=progress)
    values = ", ".join(f"{value:.4g}" for value in found.values)
    return f"{found.vectors.shape[1]:,} parameters, {found.products} products, eigenvalues {values}"


def layers(patient: Patient, work: Path, progress: Progress) -> str:
    found = unhelpful_layers(patient, work=work, progress=progress)
    return f"loss {found.loss:.3g}, {len(found.effects)} layers and blocks, {len(found.can_go)} can go"


def surface(patient: Patient, work: Path, progress: Progress) -> str:
    found = random_surface(patient, points=51, processes=2, work=work, progress=progress)
    return f"51 x 51 points in two processes, loss {found.centre:.4g} in the middle, {found.losses.min():.4g} to {found.losses.max():.4g}"


EXAMINATIONS: dict[str, Examination] = {
    "hessian-mlp": Examination(perceptron, eigenvalues, "eigenvalues"),
    "hessian-cnn": Examination(convolutions, eigenvalues, "eigenvalues"),
    "layers-resnet18": Examination(resnet18, layers, "layers"),
    "surface-nnvis": Examination(nnvis, surface, "loss surface"),
}


def _grey(model: nn.Module) -> Patient:
    split = classification().first(1000)
    trained(model, split.train_inputs, split.train_targets, steps=60)
    return Patient.of(model, functional.cross_entropy, batches(split.train_inputs, split.train_targets, 125))


def _colour(images: Tensor) -> Tensor:
    """Grey 28 x 28 images as (images, 3, 32, 32)."""
    return functional.pad(images, (2, 2, 2, 2)).expand(-1, 3, -1, -1).contiguous()


def prepared(examination: Examination, kept: Path) -> Patient:
    """The patient; the same one, without training it again, where it was made before."""
    if kept.exists():
        return torch.load(kept, weights_only=False)  # type: ignore[no-any-return]
    torch.manual_seed(0)
    patient = examination.patient()
    torch.save(patient, kept)
    return patient


def run(name: str, folder: Path, kill_at: float | None) -> None:
    """Examine once, and tell; at `kill_at` of the longest part this process kills itself."""
    examination = EXAMINATIONS[name]
    patient = prepared(examination, folder / "patient.pt")
    before, started = processor_seconds(), time.perf_counter()

    def tell() -> str:
        return f"{processor_seconds() - before:.0f} s of processor time, {time.perf_counter() - started:.0f} s on this machine"

    def progress(task: str, done: int, total: int) -> None:
        if kill_at is not None and task == examination.steps and done >= kill_at * total:
            print(f"{name}: killed at {done} of {total}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    said = examination.examine(patient, folder, progress)
    print(f"{name}: {said}: {tell()}", flush=True)


def processor_seconds() -> float:
    """Of this process and of all its children that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*EXAMINATIONS, []], help="which; all by default")
    parser.add_argument("--kill", type=float, metavar="SHARE", help="kill it there, and start it again")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.folder is not None:
        run(asked.names[0], asked.folder, asked.kill)
        return 0
    for name in asked.names or EXAMINATIONS:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, name, "--folder", folder]
            if asked.kill is not None and subprocess.run([*command, "--kill", str(asked.kill)], check=False).returncode != -signal.SIGKILL:
                return 1
            subprocess.run(command, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
