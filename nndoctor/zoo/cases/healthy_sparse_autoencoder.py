"""An overcomplete autoencoder with an L1 penalty: most of its ReLU outputs are zero because they are meant to be."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.models import PIXELS
from nndoctor.zoo.trainer import Trained, trained

PENALTY = 3e-3


class SparseAutoencoder(nn.Module):
    """Returns the drawn image and the code behind it."""

    def __init__(self, code: int = 256) -> None:
        super().__init__()
        self.encoder = nn.Linear(PIXELS, code)
        self.relu = nn.ReLU()
        self.decoder = nn.Linear(code, PIXELS)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        code = self.relu(self.encoder(images))  # (batch, code)
        return self.decoder(code), code  # (batch, 784), (batch, code)


def train(seed: int, attach: Attach) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, SparseAutoencoder)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    attach(model, optimizer, loader=loader)
    losses = []
    for _epoch in range(4):
        for images, _ in loader:
            flat = images.flatten(1)  # (batch, 784)
            drawn, code = model(flat)
            loss = nn.functional.mse_loss(drawn, flat) + PENALTY * code.abs().mean() * code.shape[1] ** 0.5
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return trained(losses)


CASE = Case(
    name="healthy-sparse-autoencoder",
    diagnosis=None,
    description="autoencoder with an L1 penalty on 256 ReLU codes, loss written inline",
    healthy=train,
)
