"""A deep transformer with its norms after the residual sums, at full rate from the first step: back to chance within 50 steps."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import classification
from nndoctor.zoo.trainer import Trained, fit

WIDTH, HEADS, DEPTH, ROWS = 32, 2, 20, 28


class Block(nn.Module):
    """Attention and MLP, each followed by a LayerNorm of the sum (Vaswani et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.ReLU(), nn.Linear(4 * WIDTH, WIDTH))
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, stream: Tensor) -> Tensor:
        batch, rows, width = stream.shape
        query, key, value = self.qkv(stream).view(batch, rows, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(batch, rows, width)
        stream = self.norm1(stream + self.proj(mixed))
        out: Tensor = self.norm2(stream + self.mlp(stream))  # (batch, rows, width)
        return out


class Reader(nn.Module):
    """Classifies an image read row by row, (batch, 1, 28, 28)."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Linear(ROWS, WIDTH)
        self.positions = nn.Parameter(0.02 * torch.randn(ROWS, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, images: Tensor) -> Tensor:
        stream = self.rows(images[:, 0]) + self.positions  # (batch, rows, width)
        logits: Tensor = self.head(self.blocks(stream).mean(1))
        return logits


def train(seed: int, attach: Attach, *, warmup: int, steps: int = 220) -> Trained:
    loader = classification().train_loader(32, seed=seed)
    model = seeded(seed, Reader)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3, betas=(0.9, 0.98))
    decay_from = 40

    def share(step: int) -> float:
        return min(1.0, (step + 1) / max(1, warmup)) * min(1.0, (steps - step) / (steps - decay_from))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, scheduler=schedule, clip=1.0, doctor=doctor)


CASE = Case(
    name="missing-warmup",
    diagnosis="missing-warmup",
    description="20 post-norm transformer blocks under Adam at 4e-3 without a warm-up",
    sick=partial(train, warmup=0),
    cured=partial(train, warmup=100),
    remedies={"warmup_steps": "warmup"},
    source="https://github.com/LiyuanLucasLiu/Transformer-Clinic/issues/16",
)
