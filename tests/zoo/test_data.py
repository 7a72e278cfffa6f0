"""The shipped pictures, the loaders over them, and what is said when larger sets are missing."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nndoctor.zoo.data import (
    DATA_FOLDER_VARIABLE,
    DataUnavailable,
    batches,
    classification,
    ink_regression,
    load_images,
    pixel_tokens,
)


def test_the_shipped_set_is_small_balanced_and_has_its_licence_beside_it(repository: Path) -> None:
    images = load_images()
    assert images.train_images.shape == (7000, 1, 28, 28)
    assert images.train_images.dtype == torch.uint8
    assert images.test_images.shape == (1000, 1, 28, 28)
    assert images.train_labels.bincount().tolist() == [700] * 10
    assert images.test_labels.bincount().tolist() == [100] * 10
    assets = repository / "nndoctor" / "zoo" / "assets"
    assert (assets / "fashion_mnist_small.npz").stat().st_size < 4_000_000
    assert "MIT License" in (assets / "LICENSE-fashion-mnist.txt").read_text(encoding="utf-8")


def test_no_training_picture_is_in_the_test_set() -> None:
    images = load_images()
    train = {picture.numpy().tobytes() for picture in images.train_images}
    assert not [1 for picture in images.test_images if picture.numpy().tobytes() in train]


def test_standardised_images_have_mean_zero_and_unit_variance() -> None:
    train, test = load_images().standardised()
    assert train.mean().item() == pytest.approx(0, abs=1e-4)
    assert train.std().item() == pytest.approx(1, abs=1e-4)
    assert test.mean().item() != pytest.approx(0, abs=1e-6), "the test set must be scaled by the training set's figures"


def test_the_order_of_batches_depends_on_the_seed_alone() -> None:
    def first_labels(seed: int) -> list[int]:
        torch.rand(seed + 1)  # other use of torch's generator must not matter
        return next(iter(classification().train_loader(seed=seed)))[1].tolist()  # type: ignore[no-any-return]

    assert first_labels(0) == first_labels(0)
    assert first_labels(0) != first_labels(1)


def test_an_unshuffled_loader_serves_everything_in_order() -> None:
    inputs, targets = torch.arange(10.0).unsqueeze(1), torch.arange(10)
    served = [batch[1].tolist() for batch in batches(inputs, targets, 4, shuffle=False)]
    assert served == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_ink_is_the_sum_of_the_lower_half_and_scaling_standardises_it() -> None:
    raw, scaled = ink_regression(scaled=False), ink_regression()
    picture = load_images().train_images[17, 0]
    assert raw.train_targets[17].item() == picture[14:].float().sum().item()
    assert raw.train_inputs.shape == (7000, 14 * 28)
    assert raw.train_targets.std() > 5_000
    assert scaled.train_targets.mean().item() == pytest.approx(0, abs=1e-4)
    assert scaled.train_targets.std().item() == pytest.approx(1, abs=1e-4)


def test_a_pixel_token_is_followed_by_its_successor() -> None:
    data = pixel_tokens(size=7, levels=16)
    assert data.train_inputs.shape == data.train_targets.shape == (7000, 48)
    assert torch.equal(data.train_inputs[:, 1:], data.train_targets[:, :-1])
    assert 0 <= int(data.train_inputs.min()) < int(data.train_inputs.max()) <= 15


def test_a_larger_set_is_read_from_the_folder_named_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colour = np.zeros((3, 32, 32, 3), dtype=np.uint8)
    colour[1, :, :, 2] = 200
    labels = np.array([[0], [1], [2]])
    np.savez(tmp_path / "cifar10.npz", x_train=colour, y_train=labels, x_test=colour[:1], y_test=labels[:1])
    monkeypatch.setenv(DATA_FOLDER_VARIABLE, str(tmp_path))
    images = load_images("cifar10")
    assert images.train_images.shape == (3, 3, 32, 32)
    assert images.train_images[1, 2].unique().tolist() == [200]
    assert images.train_labels.tolist() == [0, 1, 2]


def test_an_archive_without_all_arrays_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "mnist.npz", x_train=np.zeros((1, 28, 28), np.uint8))
    monkeypatch.setenv(DATA_FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(DataUnavailable, match=r"mnist\.npz: expected .*y_train, x_test, y_test missing"):
        load_images("mnist")


def test_a_set_that_is_nowhere_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match="download=True") as raised:
        load_images("fashion-mnist", folder=tmp_path)
    assert str(tmp_path) in str(raised.value)
    assert DATA_FOLDER_VARIABLE in str(raised.value)


def test_an_unknown_set_lists_the_known_ones() -> None:
    with pytest.raises(DataUnavailable, match="fashion-mnist-small, fashion-mnist, mnist, cifar10"):
        load_images("imagenet")  # type: ignore[arg-type]


def test_torchvisions_own_files_are_read_through_its_own_loader(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, 6, 28, 28) + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, 6) + bytes(range(6)))
    images = load_images("fashion-mnist", folder=tmp_path)
    assert torch.equal(images.train_images.squeeze(1), torch.from_numpy(pixels))
    assert images.test_labels.tolist() == list(range(6))


def test_the_shipped_set_needs_no_torchvision() -> None:
    code = (
        "import sys; from nndoctor.zoo.data import load_images; load_images();"
        "sys.exit(any(name.split('.')[0] == 'torchvision' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
