"""Real images to train on: a small set that ships with the package, and larger ones where they are installed.

Nothing here touches the network unless ``download=True`` is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from nndoctor.zoo.torchvision_compat import import_torchvision

ImageSetName: TypeAlias = Literal["fashion-mnist-small", "fashion-mnist", "mnist", "cifar10", "cifar100"]
Batches: TypeAlias = "DataLoader[tuple[Tensor, Tensor]]"

DATA_FOLDER_VARIABLE = "NNDOCTOR_TEST_DATA"

_TORCHVISION = {"fashion-mnist": "FashionMNIST", "mnist": "MNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


class DataUnavailable(Exception):
    """The images asked for are not on this machine; the message says where they were looked for."""


@dataclass(frozen=True)
class ImageSet:
    """Labelled images, as they were recorded.

    Args:
        name: what it was asked for as.
        train_images, test_images: uint8, (count, channels, height, width).
        train_labels, test_labels: int64, (count,).
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def standardised(self) -> tuple[Tensor, Tensor]:
        """Training and test images as float32 with mean 0 and standard deviation 1 per channel of the training set."""
        train = self.train_images.float() / 255  # (count, channels, height, width)
        mean = train.mean(dim=(0, 2, 3), keepdim=True)  # (1, channels, 1, 1)
        std = train.std(dim=(0, 2, 3), keepdim=True)  # (1, channels, 1, 1)
        return (train - mean) / std, (self.test_images.float() / 255 - mean) / std


@dataclass(frozen=True)
class Split:
    """Inputs and targets of the same length, for training and for validation."""

    train_inputs: Tensor
    train_targets: Tensor
    val_inputs: Tensor
    val_targets: Tensor

    def train_loader(self, batch_size: int = 64, *, seed: int = 0, shuffle: bool = True) -> Batches:
        """A loader over the training part whose order depends on `seed` alone."""
        return batches(self.train_inputs, self.train_targets, batch_size, seed=seed, shuffle=shuffle)

    def val_loader(self, batch_size: int = 250) -> Batches:
        return batches(self.val_inputs, self.val_targets, batch_size, shuffle=False)

    def first(self, count: int) -> Split:
        """The same with only the first `count` training examples."""
        return Split(self.train_inputs[:count], self.train_targets[:count], self.val_inputs, self.val_targets)


def batches(inputs: Tensor, targets: Tensor, batch_size: int = 64, *, seed: int = 0, shuffle: bool = True) -> Batches:
    """A loader of (inputs, targets) whose order depends on `seed` alone; a last smaller batch is left out."""
    pairs: Any = TensorDataset(inputs, targets)
    return DataLoader(
        pairs,
        batch_size=batch_size,
        shuffle=shuffle,
        drop_last=shuffle,
        generator=torch.Generator().manual_seed(seed),
    )


def classification(name: ImageSetName = "fashion-mnist-small") -> Split:
    """Standardised images (count, channels, height, width) and their classes (count,)."""
    images = load_images(name)
    train, test = images.standardised()
    return Split(train, images.train_labels, test, images.test_labels)


def ink_regression(name: ImageSetName = "fashion-mnist-small", *, scaled: bool = True) -> Split:
    """Predict how bright the lower half of a picture is from its upper half.

    Inputs are the standardised upper rows, flattened (count, height / 2 * width); targets (count, 1) are the sum of
    the pixels below, from 0 to about 90 000. With `scaled`, they are standardised by the training set.
    """
    images = load_images(name)
    train, test = images.standardised()
    half = train.shape[2] // 2
    train_ink = images.train_images[:, :, half:].float().sum(dim=(1, 2, 3)).unsqueeze(1)  # (count, 1)
    test_ink = images.test_images[:, :, half:].float().sum(dim=(1, 2, 3)).unsqueeze(1)  # (count, 1)
    if scaled:
        mean, std = train_ink.mean(), train_ink.std()
        train_ink, test_ink = (train_ink - mean) / std, (test_ink - mean) / std
    return Split(train[:, :, :half].flatten(1), train_ink, test[:, :, :half].flatten(1), test_ink)


def pixel_tokens(name: ImageSetName = "fashion-mnist-small", *, size: int = 7, levels: int = 16) -> Split:
    """Pictures as sentences: `size` x `size` pixels in reading order, each one of `levels` grey values.

    Inputs and targets are int64 (count, size * size - 1); a target is the pixel after its input.
    """
    images = load_images(name)

    def tokens(pictures: Tensor) -> Tensor:
        grey = pictures.float().mean(dim=1, keepdim=True)  # (count, 1, height, width)
        small = torch.nn.functional.adaptive_avg_pool2d(grey, size)  # (count, 1, size, size)
        return (small.flatten(1) * levels / 256).long().clamp_(0, levels - 1)  # (count, size * size)

    train, test = tokens(images.train_images), tokens(images.test_images)
    return Split(train[:, :-1], train[:, 1:], test[:, :-1], test[:, 1:])


def load_images(
    name: ImageSetName = "fashion-mnist-small",
    *,
    folder: Path | None = None,
    download: bool = False,
    archives: Path | None = None,
) -> ImageSet:
    """The image set called `name`.

    ``fashion-mnist-small`` (7 000 + 1 000 images) ships with the package. The others are taken from
    ``<name>.npz`` in the folder named by ``NNDOCTOR_TEST_DATA`` if it is there, else from torchvision's copy
    under `folder` (default ``~/.cache/nndoctor``).

    Args:
        archives: folder of ``<name>.npz`` files instead of the one that the variable names.

    Raises:
        DataUnavailable: `name` is unknown, or the images are not on this machine.
        TorchvisionUnavailable: torchvision would be needed and cannot be imported.
    """
    if name == "fashion-mnist-small":
        with resources.files("nndoctor.zoo").joinpath("assets/fashion_mnist_small.npz").open("rb") as file:
            return _from_npz(name, file)
    if name not in _TORCHVISION:
        known = ", ".join(("fashion-mnist-small", *_TORCHVISION))
        raise DataUnavailable(f"unknown image set {name!r}; expected one of {known}")
    held = archive(name, archives)
    if held is not None:
        with held.open("rb") as file:
            return _from_npz(name, file)
    return _from_torchvision(name, folder or Path.home() / ".cache" / "nndoctor", download)


def archive(name: str, folder: Path | None = None) -> Path | None:
    """The file ``<name>.npz`` in `folder` (default the one named by ``NNDOCTOR_TEST_DATA``); None where there is none."""
    named = folder or os.environ.get(DATA_FOLDER_VARIABLE)
    if not named:
        return None
    path = Path(named) / f"{name.replace('-', '_')}.npz"
    return path if path.is_file() else None


def _from_npz(name: str, file: IO[bytes]) -> ImageSet:
    with np.load(file, allow_pickle=False) as archive:
        missing = [key for key in _ARRAYS if key not in archive]
        if missing:
            raise DataUnavailable(
                f"{name}.npz: expected the arrays {', '.join(_ARRAYS)}, found {', '.join(archive.files)}; "
                f"{', '.join(missing)} missing"
            )
        return _image_set(name, {key: archive[key] for key in _ARRAYS})


def _from_torchvision(name: str, folder: Path, download: bool) -> ImageSet:
    import_torchvision()
    import torchvision.datasets as datasets

    source = getattr(datasets, _TORCHVISION[name])
    try:
        train = source(str(folder), train=True, download=download)
        test = source(str(folder), train=False, download=download)
    except RuntimeError as error:
        raise DataUnavailable(
            f"{name} was found neither under {folder} nor as {name.replace('-', '_')}.npz in the folder named by "
            f"{DATA_FOLDER_VARIABLE}; pass download=True to let torchvision fetch it, or use 'fashion-mnist-small', "
            f"which ships with nndoctor ({error})"
        ) from error
    parts = (train.data, train.targets, test.data, test.targets)
    return _image_set(name, dict(zip(_ARRAYS, map(np.asarray, parts), strict=True)))


def _image_set(name: str, arrays: Mapping[str, Any]) -> ImageSet:
    def images(array: Any) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(array))
        if pixels.ndim == 3:
            return pixels.unsqueeze(1)  # (count, 1, height, width)
        return pixels.permute(0, 3, 1, 2).contiguous()  # (count, channels, height, width)

    def labels(array: Any) -> Tensor:
        return torch.from_numpy(np.asarray(array).astype(np.int64).reshape(-1))  # (count,)

    return ImageSet(
        name, images(arrays["x_train"]), labels(arrays["y_train"]), images(arrays["x_test"]), labels(arrays["y_test"])
    )
