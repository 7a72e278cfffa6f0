"""A convolutional VAE written with torch.distributions, its binary cross entropy averaged over the pixels."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import batches, load_images
from nndoctor.zoo.trainer import Trained

CODE = 6


class ConvVae(nn.Module):
    """Two strided convolutions down to a normal distribution over `CODE` units, two transposed ones up again."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(1, 8, 4, 2, 1), nn.LeakyReLU(0.1), nn.Conv2d(8, 16, 4, 2, 1), nn.LeakyReLU(0.1), nn.Flatten()
        )
        self.location, self.scale = nn.Linear(16 * 49, CODE), nn.Linear(16 * 49, CODE)
        self.up = nn.Sequential(
            nn.Linear(CODE, 16 * 49),
            nn.Unflatten(1, (16, 7, 7)),
            nn.LeakyReLU(0.1),
            nn.ConvTranspose2d(16, 8, 4, 2, 1),
            nn.LeakyReLU(0.1),
            nn.ConvTranspose2d(8, 1, 4, 2, 1),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Normal]:
        features = self.down(images)  # (batch, 784)
        code = Normal(self.location(features), nn.functional.softplus(self.scale(features)) + 1e-4)
        return self.up(code.rsample()), code  # (batch, 1, 28, 28)


def train(seed: int, attach: Attach, *, beta: float, steps: int = 300) -> Trained:
    images = load_images()
    loader = batches(images.train_images.float() / 255, images.train_labels, 32, seed=seed)
    model = seeded(seed, ConvVae)
    prior = Normal(torch.zeros(CODE), torch.ones(CODE))
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    attach(model, optimizer, loader=loader)
    losses: list[float] = []
    errors: list[float] = []
    while len(losses) < steps:
        for pictures, _ in loader:
            logits, code = model(pictures)
            error = nn.functional.binary_cross_entropy_with_logits(logits, pictures)
            loss = error + beta * kl_divergence(code, prior).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
            errors.append(error.item())
            if len(losses) == steps:
                break
    return Trained(tuple(losses), sum(errors[-20:]) / 20)


CASE = Case(
    name="posterior-collapse-distributions",
    diagnosis="posterior-collapse",
    description="convolutional VAE with torch.distributions: cross entropy averaged over pixels, beta = 1",
    sick=partial(train, beta=1.0),
    cured=partial(train, beta=1 / 784),
    remedies={"kl_weight": "beta"},
    source="https://github.com/YannDubs/disentangling-vae/issues/50",
)
