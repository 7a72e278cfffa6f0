"""Images for the experiments, always 32 pixels a side: those that the claim was made on where they are at hand, else those that ship."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nndoctor.zoo.data import archive, load_images
from nndoctor.zoo.datasets import resized

SHIPPED = "fashion-mnist-small"
SIZE = 32


@dataclass(frozen=True)
class Images:
    """Standardised images (count, channels, 32, 32) and their classes (count,).

    Args:
        name: of the set.
    """

    name: str
    train_inputs: Tensor
    train_targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor

    @property
    def channels(self) -> int:
        return int(self.train_inputs.shape[1])

    def first(self, count: int, test: int | None = None) -> Images:
        """The first `count` training images, and the first `test` test images where that is given."""
        return Images(
            self.name,
            self.train_inputs[:count],
            self.train_targets[:count],
            self.test_inputs[:test],
            self.test_targets[:test],
        )

    def test_batches(self, size: int = 250) -> list[tuple[Tensor, Tensor]]:
        return list(zip(torch.split(self.test_inputs, size), torch.split(self.test_targets, size), strict=True))


def available(wanted: str, folder: Path | None = None) -> str:
    """`wanted` where it is at hand, else the name of the set that ships."""
    return wanted if archive(wanted, folder) is not None else SHIPPED


def images_for(wanted: str, folder: Path | None = None) -> Images:
    """The set called `wanted` as ``<name>.npz`` in `folder` (default the one named by ``NNDOCTOR_TEST_DATA``), else the shipped one."""
    name = available(wanted, folder)
    images = load_images(name, archives=folder)  # type: ignore[arg-type]  # one of the names
    train, test = images.standardised()
    return Images(name, resized(train, SIZE), images.train_labels, resized(test, SIZE), images.test_labels)
