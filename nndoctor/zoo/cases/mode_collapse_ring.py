"""A generator a hundred times faster than its discriminator: it runs from place to place and draws one point at a time."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.trainer import Trained

NOISE, BATCH = 8, 128


def ring(count: int, draw: torch.Generator) -> Tensor:
    """Points around eight places on a circle: (count, 2)."""
    angle = torch.randint(8, (count,), generator=draw) * math.pi / 4
    return torch.stack([angle.cos(), angle.sin()], dim=1) * 2 + 0.05 * torch.randn(count, 2, generator=draw)


def net(inputs: int, outputs: int, activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 64), activation, nn.Linear(64, 64), activation, nn.Linear(64, outputs))


def train(seed: int, attach: Attach, *, generator_rate: float, discriminator_rate: float, steps: int = 800) -> Trained:
    draw = torch.Generator().manual_seed(seed)
    generator, discriminator = seeded(seed, lambda: net(NOISE, 2, nn.ReLU())), net(2, 1, nn.LeakyReLU(0.2))
    painter = torch.optim.Adam(generator.parameters(), lr=generator_rate, betas=(0.5, 0.999))
    judge = torch.optim.Adam(discriminator.parameters(), lr=discriminator_rate, betas=(0.5, 0.999))
    loss_fn = nn.BCEWithLogitsLoss()
    attach({"generator": generator, "discriminator": discriminator}, {"generator": painter, "discriminator": judge}, loss_fn)
    ones, zeros = torch.ones(BATCH, 1), torch.zeros(BATCH, 1)
    losses = []
    for _step in range(steps):
        real, fake = ring(BATCH, draw), generator(torch.randn(BATCH, NOISE, generator=draw))  # (batch, 2) each
        judge.zero_grad()
        judged = loss_fn(discriminator(real), ones) + loss_fn(discriminator(fake.detach()), zeros)
        judged.backward()
        judge.step()
        painter.zero_grad()
        fooled = loss_fn(discriminator(fake), ones)
        fooled.backward()
        painter.step()
        losses += [judged.item(), fooled.item()]
    with torch.no_grad():
        drawn = generator(torch.randn(2000, NOISE, generator=draw))  # (2000, 2)
        missed = torch.cdist(ring(1000, draw), drawn).amin(1).mean()  # from each real point to the nearest drawn one
    return Trained(tuple(losses), float(missed))


CASE = Case(
    name="mode-collapse-ring",
    diagnosis="mode-collapse",
    description="GAN on eight places of a circle, generator at 1e-2, discriminator at 1e-4; judged by the places it misses",
    sick=partial(train, generator_rate=1e-2, discriminator_rate=1e-4),
    cured=partial(train, generator_rate=1e-3, discriminator_rate=1e-3),
    onset=100,  # up to here what is drawn lies farther apart than the real points do; then it falls together
    remedies={"generator_lr": "generator_rate", "discriminator_lr": "discriminator_rate"},
    source="https://github.com/HyperGAN/HyperGAN/issues/177",
)
