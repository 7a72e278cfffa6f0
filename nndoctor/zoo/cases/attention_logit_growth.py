"""A GPT at a bold rate whose queries and keys are not normalised: its logits grow tenfold and tenfold again."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import pixel_tokens
from nndoctor.zoo.trainer import Trained, fit

WIDTH, HEADS, CONTEXT, LEVELS = 64, 2, 48, 16


class Attention(nn.Module):
    """Causal attention; with `qk_norm` queries and keys pass a LayerNorm per head (Henry et al. 2020, Dehghani et al. 2023)."""

    def __init__(self, qk_norm: str) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        normalise = nn.LayerNorm if qk_norm == "layernorm" else nn.Identity
        self.query_norm, self.key_norm = normalise(WIDTH // HEADS), normalise(WIDTH // HEADS)

    def forward(self, stream: Tensor) -> Tensor:
        batch, tokens, width = stream.shape
        split = self.qkv(stream).view(batch, tokens, 3, HEADS, width // HEADS)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # 3 x (batch, heads, tokens, width / heads)
        query, key = self.query_norm(query), self.key_norm(key)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))  # (batch, tokens, width)
        return out


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, qk_norm: str) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Attention(qk_norm)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, stream: Tensor) -> Tensor:
        stream = stream + self.attention(self.norm1(stream))
        out: Tensor = stream + self.mlp(self.norm2(stream))  # (batch, tokens, width)
        return out


class Writer(nn.Module):
    """Logits (batch, levels, tokens) of the next pixel."""

    def __init__(self, qk_norm: str) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(LEVELS, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(Block(qk_norm), Block(qk_norm))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, LEVELS)

    def forward(self, tokens: Tensor) -> Tensor:
        stream = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))  # (batch, tokens, width)
        logits: Tensor = self.head(self.norm(self.blocks(stream)))
        return logits.transpose(1, 2)


def train(seed: int, attach: Attach, *, qk_norm: str, steps: int = 200) -> Trained:
    loader = pixel_tokens().train_loader(32, seed=seed)
    model = seeded(seed, partial(Writer, qk_norm))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2, betas=(0.9, 0.95))
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    return fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)


CASE = Case(
    name="attention-logit-growth",
    diagnosis="attention-logit-growth",
    description="GPT, AdamW at 2e-2, queries and keys not normalised: attention logits grow from 2 to hundreds",
    sick=partial(train, qk_norm="none"),
    cured=partial(train, qk_norm="layernorm"),
    place=("blocks.0.attention/attention", "blocks.1.attention/attention"),
    remedies={"qk_norm": "qk_norm"},
    source="https://arxiv.org/abs/2309.14322",
)
