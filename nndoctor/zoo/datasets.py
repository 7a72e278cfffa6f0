"""Labelled images by name, ready to train on: standardised, whitened, enlarged, or from folders of one's own."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from nndoctor.zoo.data import DataUnavailable, ImageSet, load_images
from nndoctor.zoo.torchvision_compat import import_torchvision

Samples: TypeAlias = "Dataset[tuple[Tensor, Tensor]]"

MNIST_MEAN, MNIST_DEVIATION = 0.1307, 0.3081
WHITENING = 1e-5
"""Added to the eigenvalues of the covariance, so that directions without variance are not blown up."""
TRAINING_SHARE = 0.7
"""Of a folder of images."""

NAMES = ("fashion-mnist-small", "fashion-mnist", "mnist", "mnist-32", "cifar10", "cifar100", "whitened-cifar10")
FOLDER = "images:"
"""Before the path of a folder with one folder of images for every class, such as ten classes of ImageNet."""


@dataclass(frozen=True)
class DataSet:
    """Pairs of image and class, apart for training and test.

    Args:
        classes: how many.
        shape: (channels, height, width) of an image.
    """

    name: str
    train: Samples
    test: Samples
    classes: int
    shape: tuple[int, int, int]

    @property
    def count(self) -> int:
        """Training samples."""
        return len(self.train)  # type: ignore[arg-type]

    def train_loader(self, batch_size: int, *, seed: int = 0) -> DataLoader[Any]:
        """Full batches in an order that depends on `seed` alone; the global generators are left alone."""
        generator = torch.Generator().manual_seed(seed)
        return DataLoader(self.train, batch_size, shuffle=True, drop_last=True, generator=generator)

    def test_loader(self, batch_size: int = 250) -> DataLoader[Any]:
        """All test samples in order."""
        return DataLoader(self.test, batch_size, generator=torch.Generator())


def data_set(name: str, *, size: int | None = None, folder: Path | None = None, download: bool = False) -> DataSet:
    """The data set called `name` (case, dashes and underscores do not matter), or ``images:FOLDER``.

    ``fashion-mnist-small`` ships with the package; the others are looked for as :func:`nndoctor.zoo.data.load_images` does.

    Args:
        size: pixels of a side; smaller images get a dark margin of up to two pixels on each side, else they are resized.
        folder, download: where torchvision keeps its data, and whether it may fetch them.

    Raises:
        DataUnavailable: there is no such set, or it is not on this machine.
    """
    if name.startswith(FOLDER):
        return image_folder(Path(name.removeprefix(FOLDER)), size=size or 224)
    known = {plain(each): each for each in NAMES}
    if plain(name) not in known:
        close = difflib.get_close_matches(plain(name), known, n=1)
        hint = f"did you mean {known[close[0]]!r}? " if close else ""
        raise DataUnavailable(f"no data set is called {name!r}; {hint}there are {', '.join(NAMES)} and {FOLDER}FOLDER")
    found = known[plain(name)]
    base = {"mnist-32": "mnist", "whitened-cifar10": "cifar10"}.get(found, found)
    images = load_images(base, folder=folder, download=download)  # type: ignore[arg-type]  # one of the names
    prepared = {"mnist-32": mnist_scaled, "whitened-cifar10": whitened}.get(found, ImageSet.standardised)(images)
    return _made(found, images, prepared, 32 if found == "mnist-32" and size is None else size)


def plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def mnist_scaled(images: ImageSet) -> tuple[Tensor, Tensor]:
    """Training and test images with the mean and deviation that MNIST is known by."""
    train, test = (
        (pixels.float() / 255 - MNIST_MEAN) / MNIST_DEVIATION for pixels in (images.train_images, images.test_images)
    )
    return train, test


def whitened(images: ImageSet) -> tuple[Tensor, Tensor]:
    """Training and test images whose pixels are uncorrelated with variance 1 over the training set, and still look like images (ZCA)."""
    train = images.train_images.flatten(1).float() / 255  # (count, pixels)
    mean = train.mean(0)
    covariance = (train - mean).T @ (train - mean) / len(train)  # (pixels, pixels)
    values, vectors = torch.linalg.eigh(covariance.double())
    whitening = ((vectors / (values.clamp_min(0) + WHITENING).sqrt()) @ vectors.T).float()  # (pixels, pixels)
    shape = images.train_images.shape[1:]
    test = (images.test_images.flatten(1).float() / 255 - mean) @ whitening
    return ((train - mean) @ whitening).view(-1, *shape), test.view(-1, *shape)


def image_folder(folder: Path, *, size: int = 224, seed: int = 0) -> DataSet:
    """Images that lie in one folder for each class, 70 % of them for training; read from disk as they are needed.

    Raises:
        DataUnavailable: there are no such folders, or no images in them.
    """
    import_torchvision()
    import torchvision.datasets as datasets
    import torchvision.transforms as transforms

    steps = [
        transforms.Resize(size),
        transforms.CenterCrop(size),
        transforms.ToTensor(),
        transforms.Normalize([0.5] * 3, [0.25] * 3),
    ]
    try:
        whole: Any = datasets.ImageFolder(str(folder), transforms.Compose(steps))
    except (FileNotFoundError, RuntimeError) as error:
        raise DataUnavailable(f"{folder}: expected one folder of images for every class ({error})") from error
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed)).tolist()
    border = round(TRAINING_SHARE * len(order))
    return DataSet(
        f"{FOLDER}{folder}",
        Subset(whole, order[:border]),
        Subset(whole, order[border:]),
        len(whole.classes),
        (3, size, size),
    )


def _made(name: str, images: ImageSet, prepared: tuple[Tensor, Tensor], size: int | None) -> DataSet:
    train, test = prepared if size is None else (resized(part, size) for part in prepared)
    samples: Callable[..., Any] = TensorDataset
    classes = int(images.train_labels.max()) + 1
    channels, height, width = train.shape[1:]
    return DataSet(
        name, samples(train, images.train_labels), samples(test, images.test_labels), classes, (channels, height, width)
    )


def resized(images: Tensor, size: int) -> Tensor:
    """Square images (count, channels, size, size): a margin of the darkest value where it is narrow, else interpolated."""
    missing = size - images.shape[-1]
    if missing == 0:
        return images
    if 0 < missing <= 4:
        left = missing // 2
        return F.pad(images, (left, missing - left, left, missing - left), value=float(images.min()))
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)


def shipped_batches() -> list[tuple[Tensor, Tensor]]:
    """The test images that ship with the package, as batches of 250: ``--batches nndoctor.zoo.datasets:shipped_batches``."""
    return [(images, labels) for images, labels in data_set("fashion-mnist-small").test_loader()]


def shipped_batches_32() -> list[tuple[Tensor, Tensor]]:
    """The same with 32 pixels a side."""
    return [(images, labels) for images, labels in data_set("fashion-mnist-small", size=32).test_loader()]
