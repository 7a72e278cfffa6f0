"""An autoencoder on images in [0, 1]: floating-point targets, a loss that starts small and stays small."""

from __future__ import annotations

import torch
from torch import nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, load_images
from nndoctor.zoo.models import Autoencoder
from nndoctor.zoo.trainer import Trained, fit


def train(seed: int, attach: Attach, *, steps: int = 400) -> Trained:
    images = load_images().train_images.float() / 255  # (count, 1, 28, 28)
    loader = batches(images, images, seed=seed)
    model = seeded(seed, Autoencoder)
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="healthy-autoencoder",
    diagnosis=None,
    description="autoencoder, MSE on pixels in [0, 1]",
    healthy=train,
)
