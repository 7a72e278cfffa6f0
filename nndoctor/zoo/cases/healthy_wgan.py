"""A Wasserstein GAN with gradient penalty: negative losses, second-order gradients, five critic steps to one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.trainer import Trained

NOISE = 8
CRITIC_STEPS = 5


def ring(count: int, draw: torch.Generator) -> Tensor:
    """Points around eight places on a circle: (count, 2)."""
    angle = torch.randint(8, (count,), generator=draw) * torch.pi / 4
    return torch.stack([angle.cos(), angle.sin()], dim=1) * 2 + 0.05 * torch.randn(count, 2, generator=draw)


def penalty(critic: nn.Module, real: Tensor, fake: Tensor, draw: torch.Generator) -> Tensor:
    """How far the critic's slope between real and drawn points is from one (Gulrajani et al. 2017)."""
    share = torch.rand(len(real), 1, generator=draw)
    between = (share * real + (1 - share) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    steepness: Tensor = slope.norm(dim=1)  # (batch,)
    return (steepness - 1).square().mean()


def train(seed: int, attach: Attach, *, rounds: int = 120) -> Trained:
    draw = torch.Generator().manual_seed(seed)
    generator = seeded(seed, lambda: nn.Sequential(nn.Linear(NOISE, 64), nn.ReLU(), nn.Linear(64, 2)))
    critic = nn.Sequential(nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
    paint = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.0, 0.9))
    judge = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.0, 0.9))
    attach({"generator": generator, "critic": critic}, {"generator": paint, "critic": judge})
    losses = []
    for _round in range(rounds):
        for _step in range(CRITIC_STEPS):
            real, noise = ring(128, draw), torch.randn(128, NOISE, generator=draw)
            fake = generator(noise).detach()  # (128, 2)
            verdict = critic(fake).mean() - critic(real).mean() + 10 * penalty(critic, real, fake, draw)
            judge.zero_grad()
            verdict.backward()
            judge.step()
        fooled = -critic(generator(torch.randn(128, NOISE, generator=draw))).mean()
        paint.zero_grad()
        fooled.backward()
        paint.step()
        losses += [verdict.item(), fooled.item()]
    return Trained(tuple(losses), None)


CASE = Case(
    name="healthy-wgan",
    diagnosis=None,
    description="WGAN-GP: losses below zero, backward through a gradient, critic and generator step five to one",
    healthy=train,
    source="https://arxiv.org/abs/1704.00028",
)
