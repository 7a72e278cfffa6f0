"""A variational autoencoder: a loss summed over the pixels, in the hundreds, with a term that rises."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, load_images
from nndoctor.zoo.models import PIXELS
from nndoctor.zoo.trainer import Trained, trained


class Vae(nn.Module):
    """Returns the logits of the drawn pixels, and mean and log-variance of the code (Kingma & Welling 2014)."""

    def __init__(self, code: int = 8) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(PIXELS, 200), nn.ReLU())
        self.mean = nn.Linear(200, code)
        self.log_variance = nn.Linear(200, code)
        self.decoder = nn.Sequential(nn.Linear(code, 200), nn.ReLU(), nn.Linear(200, PIXELS))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.encoder(images.flatten(1))  # (batch, 200)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)  # (batch, code)
        code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        return self.decoder(code), mean, log_variance


def train(seed: int, attach: Attach) -> Trained:
    images = load_images()
    loader = batches(images.train_images.float() / 255, images.train_labels, seed=seed)
    model = seeded(seed, Vae)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    attach(model, optimizer, loader=loader)
    losses = []
    for _epoch in range(4):
        for pictures, _ in loader:
            drawn, mean, log_variance = model(pictures)
            likeness = nn.functional.binary_cross_entropy_with_logits(drawn, pictures.flatten(1), reduction="sum")
            divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum()
            loss = (likeness + divergence) / len(pictures)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return trained(losses)


CASE = Case(
    name="healthy-vae",
    diagnosis=None,
    description="VAE: loss in the hundreds, summed over pixels; the divergence rises while the whole falls",
    healthy=train,
    source="https://arxiv.org/abs/1312.6114",
)
