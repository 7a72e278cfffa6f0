"""Data sets, optimizers and seeds by name."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nndoctor.zoo.data import DATA_FOLDER_VARIABLE, DataUnavailable, ImageSet
from nndoctor.zoo.datasets import MNIST_DEVIATION, MNIST_MEAN, data_set, resized, whitened
from nndoctor.zoo.optimizers import UnknownOptimizer, optimizer_named, optimizer_names
from nndoctor.zoo.seeding import seed_everything


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small random stand-ins for the sets that do not ship."""
    rng = np.random.default_rng(0)
    for name, shape, classes in (("mnist", (28, 28), 10), ("cifar10", (32, 32, 3), 10), ("cifar100", (32, 32, 3), 100), ("fashion_mnist", (28, 28), 10)):
        arrays = {}
        for part, count in (("train", 200), ("test", 50)):
            arrays[f"x_{part}"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
            arrays[f"y_{part}"] = np.arange(count) % classes
        np.savez(tmp_path / f"{name}.npz", **arrays)
    monkeypatch.setenv(DATA_FOLDER_VARIABLE, str(tmp_path))


@pytest.mark.usefixtures("archives")
@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("MNIST", (1, 28, 28), 10),
        ("FashionMNIST", (1, 28, 28), 10),
        ("CIFAR10", (3, 32, 32), 10),
        ("CIFAR100", (3, 32, 32), 100),
        ("mnist-32", (1, 32, 32), 10),
    ],
)
def test_a_data_set_by_name_knows_its_shape_and_classes(name: str, shape: tuple[int, int, int], classes: int) -> None:
    found = data_set(name)
    assert (found.shape, found.classes, found.count) == (shape, classes, 200)
    images, labels = next(iter(found.train_loader(64)))
    assert images.shape == (64, *shape)
    assert labels.dtype == torch.int64
    assert len(found.train_loader(64)) == 3
    assert sum(len(labels) for _, labels in found.test_loader(20)) == 50


@pytest.mark.usefixtures("archives")
def test_mnist_at_32_pixels_has_the_published_scale() -> None:
    images = torch.stack([image for image, _ in data_set("mnist-32").train])  # type: ignore[attr-defined]
    assert float(images[:, :, 2:-2, 2:-2].min()) == pytest.approx(-MNIST_MEAN / MNIST_DEVIATION)
    assert float(images.max()) == pytest.approx((1 - MNIST_MEAN) / MNIST_DEVIATION)
    assert (images[:, :, :2] == images.min()).all()


def test_whitened_pixels_are_uncorrelated_and_have_variance_one() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3000, 1, 4, 4), generator=generator)
    pixels[..., 1] = (pixels[..., 0] * 3 + pixels[..., 1]) // 4  # neighbours that know of each other
    images = ImageSet("noise", pixels.byte(), torch.zeros(3000, dtype=torch.int64), pixels[:10].byte(), torch.zeros(10, dtype=torch.int64))
    train, test = whitened(images)
    assert torch.allclose(torch.cov(train.flatten(1).T), torch.eye(16), atol=0.01)
    assert torch.allclose(test, train[:10], atol=1e-4)


def test_a_folder_of_images_is_split_seventy_to_thirty(tmp_path: Path) -> None:
    from PIL import Image

    for kind in ("cat", "dog"):
        (tmp_path / "images" / kind).mkdir(parents=True)
        for index in range(5):
            Image.new("RGB", (40, 30), (index * 20, 0, 0)).save(tmp_path / "images" / kind / f"{index}.png")
    found = data_set(f"images:{tmp_path / 'images'}", size=24)
    assert (found.classes, found.shape, found.count) == (2, (3, 24, 24), 7)
    assert len(found.test) == 3  # type: ignore[arg-type]
    assert found.train[0][0].shape == (3, 24, 24)


def test_unknown_names_are_answered_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match="did you mean 'cifar100'"):
        data_set("cifar1000")
    with pytest.raises(DataUnavailable, match="one folder of images for every class"):
        data_set(f"images:{tmp_path / 'none'}")
    with pytest.raises(UnknownOptimizer, match="did you mean 'RMSprop'"):
        optimizer_named("rmspropp", nn.Linear(1, 1))
    with pytest.raises(UnknownOptimizer, match=r"SGD: .*betas"):
        optimizer_named("sgd", nn.Linear(1, 1), betas=(0, 0))


def test_wide_enlargements_are_interpolated_and_narrow_ones_get_a_margin() -> None:
    images = torch.rand(2, 1, 28, 28)
    assert torch.equal(resized(images, 32)[:, :, 2:-2, 2:-2], images)
    assert resized(images, 64).shape == (2, 1, 64, 64)


@pytest.mark.parametrize("name", ["SGD", "adam", "AdamW", "RMSprop", "Adagrad", "LBFGS"])
def test_an_optimizer_by_name_holds_only_what_trains(name: str) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    optimizer = optimizer_named(name, model, lr=0.05)
    assert type(optimizer).__name__.lower() == name.lower()
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in model[1].parameters()]
    assert optimizer.param_groups[0]["lr"] == 0.05


def test_every_optimizer_of_torch_is_known() -> None:
    assert {"SGD", "Adam", "AdamW", "NAdam", "Adamax", "Rprop", "ASGD"} <= set(optimizer_names())
    assert "Optimizer" not in optimizer_names()


def test_a_seed_gives_the_same_numbers_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)

    def drawn() -> tuple[float, float, float]:
        seed_everything(7)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    assert drawn() == drawn()
    assert torch.backends.cudnn.deterministic
    assert os.environ["PYTHONHASHSEED"] == "7"
