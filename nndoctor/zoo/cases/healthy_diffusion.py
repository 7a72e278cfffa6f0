"""A diffusion model: it predicts noise, the loss is near one at first and noisy from then on."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.trainer import Trained, trained

PIXELS = 14 * 14
TIMES = 100


class NoisePredictor(nn.Module):
    """Which noise was added to a picture, given the picture and how far along it is (Ho et al. 2020)."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(32, width), nn.SiLU(), nn.Linear(width, width))
        self.first = nn.Linear(PIXELS, width)
        self.second = nn.Linear(width, width)
        self.last = nn.Linear(width, PIXELS)
        nn.init.zeros_(self.last.weight)
        self.act = nn.SiLU()

    def forward(self, noisy: Tensor, times: Tensor) -> Tensor:
        frequencies = torch.exp(-math.log(1000) * torch.arange(16) / 16)
        angles = times.unsqueeze(1) * frequencies  # (batch, 16)
        when = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))  # (batch, width)
        hidden = self.act(self.first(noisy) + when)
        hidden = hidden + self.act(self.second(hidden) + when)
        noise: Tensor = self.last(hidden)  # (batch, pixels)
        return noise


def train(seed: int, attach: Attach) -> Trained:
    data = classification()
    loader = data.train_loader(seed=seed)
    draw = torch.Generator().manual_seed(seed)
    kept = torch.cos(torch.linspace(0, 0.49 * math.pi, TIMES)) ** 2  # (times,), share of the picture's variance
    model = seeded(seed, NoisePredictor)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    attach(model, optimizer, nn.MSELoss(), loader=loader)
    loss_fn = nn.MSELoss()
    losses = []
    for _epoch in range(4):
        for images, _ in loader:
            clean = nn.functional.avg_pool2d(images, 2).flatten(1)  # (batch, pixels)
            times = torch.randint(TIMES, (len(clean),), generator=draw)  # (batch,)
            noise = torch.randn(clean.shape, generator=draw)
            share = kept[times].unsqueeze(1)  # (batch, 1)
            loss = loss_fn(model(share.sqrt() * clean + (1 - share).sqrt() * noise, times.float()), noise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return trained(losses)


CASE = Case(
    name="healthy-diffusion",
    diagnosis=None,
    description="diffusion: targets are noise, the head starts at zero, the loss starts at 1 and stays noisy",
    healthy=train,
    source="https://arxiv.org/abs/2006.11239",
)
