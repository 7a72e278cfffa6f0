"""Every picture is unpacked and warped one at a time in the training process: the step waits for its data."""

from __future__ import annotations

import zlib
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import LeNet
from nndoctor.zoo.trainer import Trained, fit


class PackedPictures(Dataset[tuple[Tensor, Tensor]]):
    """Pictures kept compressed; each is unpacked and rotated by a fixed small angle when it is asked for."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.packed = [zlib.compress(picture.numpy().tobytes()) for picture in inputs]
        self.shape = inputs.shape[1:]
        self.targets = targets

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels = np.frombuffer(zlib.decompress(self.packed[index]), dtype=np.float32).copy()
        picture = torch.from_numpy(pixels).view(1, *self.shape)  # (1, 1, 28, 28)
        for angle in (0.10, -0.05, 0.05, -0.10):
            picture = _rotated(picture, angle)
        return picture[0], self.targets[index]


def _rotated(picture: Tensor, angle: float) -> Tensor:
    turn = torch.tensor(angle)
    matrix = torch.stack((turn.cos(), -turn.sin(), turn * 0, turn.sin(), turn.cos(), turn * 0)).view(1, 2, 3)
    grid = nn.functional.affine_grid(matrix, list(picture.shape), align_corners=False)  # (1, 28, 28, 2)
    return nn.functional.grid_sample(picture, grid, align_corners=False)  # (1, 1, 28, 28)


def train(seed: int, attach: Attach, *, prepared: bool, steps: int = 200) -> Trained:
    data = classification().first(1280)
    pictures: Any = PackedPictures(data.train_inputs, data.train_targets)
    if prepared:  # the same pictures, unpacked and warped once
        inputs, targets = zip(*(pictures[index] for index in range(len(pictures))), strict=True)
        pictures = TensorDataset(torch.stack(inputs), torch.stack(targets))
    loader = DataLoader(pictures, batch_size=64, shuffle=True, generator=torch.Generator().manual_seed(seed))
    model = seeded(seed, LeNet)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    return Trained(run.losses, None)  # the same losses, only slower


CASE = Case(
    name="input-bound",
    diagnosis="input-bound",
    description="LeNet: pictures are unpacked and warped one by one in the main process",
    sick=partial(train, prepared=False),
    cured=partial(train, prepared=True),
    source="https://github.com/pytorch/examples/issues/387",
)
