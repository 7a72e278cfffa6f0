"""Pictures of clothes for the examples: those that come with nndoctor, a file of your own, or what torchvision loads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nndoctor.zoo.data import load_images


@dataclass(frozen=True)
class Pictures:
    """Grey or coloured pictures (count, channels, height, width) with values from 0 to 1, and their classes (count,)."""

    train: Tensor
    train_classes: Tensor
    val: Tensor
    val_classes: Tensor


def pictures(source: str | None = None) -> Pictures:
    """What `source` names: a ``.npz`` with x_train, y_train, x_test, y_test, or a data set of torchvision.

    Without it, 7 000 and 1 000 pictures of Fashion-MNIST, which come with nndoctor. A name is one of ``fashion-mnist``,
    ``mnist`` or ``cifar10``; torchvision fetches it once into ``~/.cache/nndoctor``.
    """
    if source is not None and source.endswith(".npz"):
        with np.load(source) as archive:
            train, train_classes, val, val_classes = (
                torch.from_numpy(archive[name]) for name in ("x_train", "y_train", "x_test", "y_test")
            )
        return Pictures(scaled(train), train_classes.long(), scaled(val), val_classes.long())
    found = load_images(source or "fashion-mnist-small", download=source is not None)  # type: ignore[arg-type]
    return Pictures(found.train_images / 255, found.train_labels, found.test_images / 255, found.test_labels)


def scaled(images: Tensor) -> Tensor:
    """Bytes with the channels last, or with none, as numbers from 0 to 1 with the channels first."""
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return images.contiguous() / 255
