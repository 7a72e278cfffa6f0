"""A VAE that averages the reconstruction over pixels and sums the divergence over units: the code is not worth its price."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, load_images
from nndoctor.zoo.models import PIXELS
from nndoctor.zoo.trainer import Trained


class Vae(nn.Module):
    """Returns the drawn pixels, and mean and log-variance of the code (Kingma & Welling 2014)."""

    def __init__(self, code: int = 8) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(PIXELS, 128), nn.ReLU(), nn.Linear(128, 2 * code))
        self.decoder = nn.Sequential(nn.Linear(code, 128), nn.ReLU(), nn.Linear(128, PIXELS), nn.Sigmoid())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encoder(images.flatten(1)).chunk(2, dim=1)  # (batch, code) each
        code = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        return self.decoder(code), mean, log_variance


def train(seed: int, attach: Attach, *, kl_weight: float, steps: int = 400) -> Trained:
    images = load_images()
    loader = batches(images.train_images.float() / 255, images.train_labels, seed=seed)
    model = seeded(seed, Vae)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    attach(model, optimizer, loader=loader)
    losses: list[float] = []
    errors: list[float] = []
    while len(losses) < steps:
        for pictures, _ in loader:
            drawn, mean, log_variance = model(pictures)
            error = nn.functional.mse_loss(drawn, pictures.flatten(1))
            divergence = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp(), dim=1).mean()
            loss = error + kl_weight * divergence
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
            errors.append(error.item())
            if len(losses) == steps:
                break
    return Trained(tuple(losses), sum(errors[-20:]) / 20)


CASE = Case(
    name="posterior-collapse-mean-reduction",
    diagnosis="posterior-collapse",
    description="VAE: MSE averaged over 784 pixels against a divergence summed over units; judged by the reconstruction",
    sick=partial(train, kl_weight=1.0),
    cured=partial(train, kl_weight=1 / PIXELS),
    remedies={"kl_weight": "kl_weight"},
    source="https://github.com/AppliedDataSciencePartners/WorldModels/issues/12",
)
