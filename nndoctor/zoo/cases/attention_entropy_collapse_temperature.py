"""Attention logits are multiplied by the root of the width instead of divided by it: every query sees one key."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import pixel_tokens
from nndoctor.zoo.trainer import Trained, fit

WIDTH, CONTEXT, LEVELS = 64, 48, 16


class Attention(nn.Module):
    """One causal head over the whole width; `temperature` divides what the slip has multiplied."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, stream: Tensor) -> Tensor:
        query, key, value = self.qkv(stream).chunk(3, dim=-1)  # (batch, tokens, width) each
        scores = query @ key.transpose(-2, -1) * math.sqrt(WIDTH) / self.temperature  # (batch, tokens, tokens)
        later = torch.ones_like(scores[0], dtype=torch.bool).triu(1)  # (tokens, tokens)
        mixed = torch.softmax(scores.masked_fill(later, float("-inf")), dim=-1) @ value
        out: Tensor = self.proj(mixed)
        return out


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Attention(temperature)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, stream: Tensor) -> Tensor:
        stream = stream + self.attention(self.norm1(stream))
        out: Tensor = stream + self.mlp(self.norm2(stream))  # (batch, tokens, width)
        return out


class Writer(nn.Module):
    """Logits (batch, levels, tokens) of the next pixel."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(LEVELS, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(Block(temperature), Block(temperature))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, LEVELS)

    def forward(self, tokens: Tensor) -> Tensor:
        stream = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))  # (batch, tokens, width)
        logits: Tensor = self.head(self.norm(self.blocks(stream)))
        return logits.transpose(1, 2)


def train(seed: int, attach: Attach, *, temperature: float, steps: int = 150) -> Trained:
    loader = pixel_tokens().train_loader(32, seed=seed)
    model = seeded(seed, partial(Writer, temperature))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95))
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="attention-entropy-collapse-temperature",
    diagnosis="attention-entropy-collapse",
    description="GPT with one head of 64: scores times sqrt(64) instead of divided by it",
    sick=partial(train, temperature=1.0),
    cured=partial(train, temperature=float(WIDTH)),
    place=("blocks.0.attention/attention", "blocks.1.attention/attention"),
    remedies={"attention_temperature": "temperature"},
    source="https://arxiv.org/abs/1706.03762",
)
