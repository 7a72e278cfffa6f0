"""How long the examinations of the lab take, in processor time of this process: that is what neighbours move least.

    python benchmarks/lab_times.py [hessian-mlp hessian-cnn layers-resnet18]

Networks are trained for a few steps on the images that ship with the package before they are examined; the training is
not counted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nndoctor.lab import Patient
from nndoctor.lab.curvature import hessian_eigenpairs
from nndoctor.lab.unhelpful import unhelpful_layers
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import model_named


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


def hessian_mlp() -> str:
    """Five leading eigenvalues of a perceptron with a million parameters on 1000 images."""
    widths = [nn.Flatten(), nn.Linear(784, 800), nn.ReLU(), nn.Linear(800, 460), nn.ReLU(), nn.Linear(460, 10)]
    return _hessian(nn.Sequential(*widths))


def hessian_cnn() -> str:
    """The same of a convolutional network with a million parameters."""

    def block(channels_in: int, channels: int) -> nn.Module:
        parts = nn.Conv2d(channels_in, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2)
        return nn.Sequential(*parts)

    blocks = block(1, 32), block(32, 64), block(64, 128)
    return _hessian(nn.Sequential(*blocks, nn.Flatten(), nn.Linear(1152, 780), nn.ReLU(), nn.Linear(780, 10)))


def layers_resnet18() -> str:
    """Unhelpful layers of ResNet-18 (32 x 32 x 3) on 256 held-out images."""
    split = classification()
    model = trained(model_named("resnet18"), _colour(split.train_inputs[:2000]), split.train_targets[:2000], steps=60)
    patient = Patient.of(model, functional.cross_entropy, batches(_colour(split.val_inputs[:256]), split.val_targets[:256], 64))
    found, seconds = timed(lambda: unhelpful_layers(patient))
    return f"{len(found.effects)} layers and blocks, {len(found.can_go)} can go: {seconds:.0f} s"


def _hessian(model: nn.Module) -> str:
    split = classification().first(1000)
    trained(model, split.train_inputs, split.train_targets, steps=60)
    patient = Patient.of(model, functional.cross_entropy, batches(split.train_inputs, split.train_targets, 125))
    found, seconds = timed(lambda: hessian_eigenpairs(patient, 5))
    values = ", ".join(f"{value:.3g}" for value in found.values)
    return f"{found.vectors.shape[1]:,} parameters, {found.products} products, {values}: {seconds:.0f} s"


def _colour(images: Tensor) -> Tensor:
    """Grey 28 x 28 images as (images, 3, 32, 32)."""
    return functional.pad(images, (2, 2, 2, 2)).expand(-1, 3, -1, -1).contiguous()


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` returns and the processor time it took (s), all threads of this process together."""
    started = time.process_time()
    return work(), time.process_time() - started


TIMES: dict[str, Callable[[], str]] = {"hessian-mlp": hessian_mlp, "hessian-cnn": hessian_cnn, "layers-resnet18": layers_resnet18}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*TIMES, []], help="which; all by default")
    torch.set_num_threads(1)
    for name in parser.parse_args().names or TIMES:
        torch.manual_seed(0)
        print(f"{name}: {TIMES[name]()} of processor time", flush=True)


if __name__ == "__main__":
    main()
